"""In-context learners (GPICL): a sequence network reads an episode and predicts each label from what came before.

Token layouts, one option for every sequence network:

  shifted     the paper's (A): [x_t, y_{t-1}], first label slot zero. Needs a previous-token head and a matching head,
              hence a long plateau; with learned absolute positions.
  pair        ours (B): [x_t, x_{t-1}, y_{t-1}]; example and label meet in one token, no positional code.
  query       ours (C, the form of prior-fitted networks): supports [x_s, y_s] and queries [x_t, 0] side by side, 2T
              tokens; query t sees supports s < t and itself. Transformer only.

The loss is the *mean* cross-entropy over all positions, the first with its irreducible ln V included.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.learning.gradients import grads_from_loss
from metalearn.measure import losses
from metalearn.nn import sequence
from metalearn.types import Array, Episodes, Learner, Stream
from metalearn.validate import one_of, require

LAYOUTS = ("shifted", "pair", "query")


def make(facts, *, network: dict, layout: str, dtype: str) -> Learner:
    """An in-context classifier.

    network  {"name": transformer | lstm | outer_lstm | vsml | vsml_nosym | mlp, ...its sizes}, see `nn.sequence`
    layout   shifted | pair | query (query: transformer only; the others read tokens one after another)
    dtype    float32 | bfloat16 (transformer, and the cell of lstm and outer_lstm): what matmuls compute in;
             parameters, softmax, norms and the loss stay f32
    """
    one_of(LAYOUTS, layout=layout)
    one_of(("float32", "bfloat16"), dtype=dtype)
    ways, features, length = facts["ways"], facts["features"], facts["length"]
    name = network.get("name")
    require(layout != "query" or name == "transformer", "layout", layout, f"needs network.name=transformer, not {name}")
    require(dtype == "float32" or name in ("transformer", "lstm", "outer_lstm"), "dtype", dtype,
            f"network.name={name} computes in float32 only")
    net = sequence.make(network, ways=ways, features=features, layout=layout, slots=length, dtype=jnp.dtype(dtype))

    def read(batch: Episodes) -> tuple[Array, np.ndarray | None]:
        mask_LL = query_mask(batch.y_BT.shape[1]) if layout == "query" else None
        return tokens(batch.x_BTX, batch.y_BT, ways, layout), mask_LL

    def logits(params, batch: Episodes) -> Array:
        if layout == "query":
            return net.apply(params, *read(batch), batch.y_BT.shape[1])  # of the queries, not of the supports
        return net.apply(params, *read(batch))

    def attention(params, carry, batch: Episodes) -> list[Array]:
        return net.attention(params, *read(batch))

    def loss(params, carry, batch: Episodes, key):
        value, means = losses.classification(logits(params, batch), batch.y_BT, batch.mask_BT)
        return value, (carry, means)

    def init(key, batch: Episodes):
        return net.init(key, tokens(batch.x_BTX[:1], batch.y_BT[:1], ways, layout)), ()

    return Learner(init, grads_from_loss(loss), lambda params, carry, batch: logits(params, batch),
                   net.state_size, _stream(net, ways, features, layout), attention=attention if net.attention else None)


def tokens(x_BTX: Array, y_BT: Array, ways: int, layout: str) -> Array:
    """The token sequence of a layout: (B, T, X + V), (B, T, 2X + V) or (B, 2T, X + V)."""
    y_BTV = jax.nn.one_hot(y_BT, ways)
    before = lambda a: jnp.pad(a, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    if layout == "shifted":
        return jnp.concatenate([x_BTX, before(y_BTV)], -1)
    if layout == "pair":
        return jnp.concatenate([x_BTX, before(x_BTX), before(y_BTV)], -1)
    support = jnp.concatenate([x_BTX, y_BTV], -1)
    query = jnp.concatenate([x_BTX, jnp.zeros_like(y_BTV)], -1)
    return jnp.concatenate([support, query], 1)


def query_mask(length: int) -> np.ndarray:
    """(2T, 2T), queries by keys: support s sees supports up to s; query t sees supports s < t and itself."""
    causal, eye = np.tri(length, dtype=bool), np.eye(length, dtype=bool)
    return np.block([[causal, np.zeros_like(causal)], [causal & ~eye, eye]])


class StreamState(NamedTuple):
    """position: examples seen; x_prev_BX: the last input, whose label the next step brings; net: cache or carry."""

    position: Array
    x_prev_BX: Array
    net: object


def _stream(net, ways: int, features: int, layout: str) -> Stream:
    def init(params, num, length):
        return StreamState(jnp.zeros((), jnp.int32), jnp.zeros((num, features)), net.stream_init(params, num, length))

    def step(params, state: StreamState, x_BX, y_prev_B):
        label_BV = jax.nn.one_hot(y_prev_B, ways)  # -1 gives zeros: the first position has no label before it
        t = state.position
        if layout == "query":
            support = jnp.concatenate([state.x_prev_BX, label_BV], -1)[:, None]
            query = jnp.concatenate([x_BX, jnp.zeros_like(label_BV)], -1)[:, None]
            net_state, logits_BLV = net.stream_query(params, state.net, support, query, t)
        else:
            parts = [x_BX, label_BV] if layout == "shifted" else [x_BX, state.x_prev_BX, label_BV]
            net_state, logits_BLV = net.stream_step(params, state.net, jnp.concatenate(parts, -1)[:, None], t)
        return StreamState(t + 1, x_BX, net_state), logits_BLV[:, -1]

    return Stream(init, step)
