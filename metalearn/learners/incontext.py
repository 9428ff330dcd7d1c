"""In-context learners (GPICL): a sequence network reads an episode and predicts each label from what came before.

Token layouts, one option for every sequence network:

  shifted     the paper's (A): [x_t, y_{t-1}], first label slot zero; needs two heads in a row, hence a long plateau
  previous_example   ours (B): [x_t, x_{t-1}, y_{t-1}]; example and label meet in one token, no positional code.
  query       ours (C, the form of prior-fitted networks): supports [x_s, y_s] and queries [x_t, 0] side by side, 2T
              tokens; query t sees supports s < t and itself. Transformer only: others read tokens one after another.

The loss is the *mean* cross-entropy over all positions, the first with its irreducible ln V included.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.learning.gradients import grads_from_loss
from metalearn.measure import losses
from metalearn.nn import network as network_nn, tokens as tokens_nn
from metalearn.types import Array, Episodes, Learner
from metalearn.validate import one_of, require

LAYOUTS = ("shifted", "previous_example", "query")


def make(spec, *, network: dict, layout: str, dtype: str) -> Learner:
    """An in-context classifier.

    network  {"name": a file of networks/, ...its sizes}
    layout   shifted | previous_example | query (query: networks that take a mask, which is transformer; the others
             read tokens one after another)
    dtype    float32 | bfloat16, where the network has it: what matmuls compute in; parameters, softmax, norms and the
             loss stay f32
    """
    one_of(LAYOUTS, layout=layout)
    one_of(("float32", "bfloat16"), dtype=dtype)
    ways, features, length = spec.outputs, spec.features, spec.length
    net = network_nn.make(network, network_nn.NetworkSpec(ways, features, layout, length, dtype, 1))
    require(layout != "query" or net.masks, "layout", layout,
            f"needs network.name=transformer, which takes a mask, not {network['name']}")

    def logits(params, batch: Episodes) -> Array:
        tokens_BLI, T = tokens(batch.x_BTX, batch.y_BT, ways, layout), batch.y_BT.shape[1]
        # of the queries, not of the supports; a query has the place of the support that it will become
        asked = dict(mask_LL=query_mask(T), last=T, place_L=np.tile(np.arange(T), 2)) if layout == "query" else {}
        return net.apply(params, None, tokens_BLI, **asked)[1]

    def loss(params, carry, batch: Episodes, key):
        value, means = losses.classification(logits(params, batch), batch.y_BT, batch.mask_BT)
        return value, (carry, means)

    def init(key, batch: Episodes):
        return net.init(key, tokens(batch.x_BTX[:1], batch.y_BT[:1], ways, layout)), ()

    def state_size(length: int) -> int:
        token_11I = jax.ShapeDtypeStruct((1, 1, size(features, ways, layout)), jnp.float32)
        return net.state_size(jax.eval_shape(net.init, jax.random.key(0), token_11I), length)

    return Learner(init, grads_from_loss(loss), lambda params, carry, batch: logits(params, batch), state_size)


def size(features: int, ways: int, layout: str) -> int:
    """Entries of a token."""
    return features * (2 if layout == "previous_example" else 1) + ways


def tokens(x_BTX: Array, y_BT: Array, ways: int, layout: str) -> Array:
    """The token sequence of a layout: (B, T, X + V), (B, T, 2X + V) or (B, 2T, X + V)."""
    y_BTV = jax.nn.one_hot(y_BT, ways)
    before = lambda a: jnp.pad(a, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    if layout == "shifted":
        return token(x_BTX, before(y_BTV))
    if layout == "previous_example":
        return token(x_BTX, before(x_BTX), before(y_BTV))
    return jnp.concatenate([token(x_BTX, y_BTV), token(x_BTX, jnp.zeros_like(y_BTV))], 1)


def token(*parts: Array) -> Array:
    """Inputs, normalised by the task to unit spread, then a one-hot label (or zeros), each with an equal say."""
    return tokens_nn.join(parts, [*(x.shape[-1] for x in parts[:-1]), 1.0])


def query_mask(length: int) -> np.ndarray:
    """(2T, 2T), queries by keys: support s sees supports up to s; query t sees supports s < t and itself."""
    causal, eye = np.tri(length, dtype=bool), np.eye(length, dtype=bool)
    return np.block([[causal, np.zeros_like(causal)], [causal & ~eye, eye]])
