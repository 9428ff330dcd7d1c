"""In-context learning on an embedding (the idea of SNAIL, Mishra et al. 2018, with a set Transformer as the reader).

Tokens are [embedding, label] for the support and [embedding, 0] for the queries. A query sees the support and itself,
so queries do not help each other. A network that takes a mask lets support tokens all see each other, and without
positions their order does not matter; any other reads them one after another, and every query from where that ends.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.learning import support_query
from metalearn.nn import addressing, backbone as backbone_lib, network as network_nn, tokens
from metalearn.types import Array, Episodes, Learner, PyTree


def make(spec, *, backbone: dict, network: dict) -> Learner:
    """The learner.

    backbone   embeds each example: {"name": a file of backbones/, ...its sizes}
    network    reads the episode: {"name": a file of networks/, ...its sizes}
    """
    support_query.need(spec, fixed_ways=True)
    body = backbone_lib.make(backbone, spec)
    V = spec.outputs
    net = network_nn.make(network, network_nn.NetworkSpec(V, body.features, "support_query", spec.length, "float32", 1))

    def outputs(params, carry, batch: Episodes, train: bool):
        x_BSX, y_BS, x_BQX, _ = support_query.parts(batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(body, params["body"], carry, x_BSX, x_BQX, train)
        S, Q = h_BSD.shape[1], h_BQD.shape[1]
        y_BSV = jax.nn.one_hot(y_BS, V) if spec.classes else y_BS
        label_BLV = jnp.concatenate([y_BSV, jnp.zeros((len(y_BSV), Q, V))], 1)
        h_BLD = addressing.unit(jnp.concatenate([h_BSD, h_BQD], 1), 1e-6)
        tokens_BLI = tokens.join([h_BLD, label_BLV], [1.0, 1.0 if spec.classes else V])
        return read(net, params["reader"], tokens_BLI, S), carry

    def init(key, batch: Episodes):
        key_body, key_reader = jax.random.split(key)
        params = body.init(key_body, batch.x_BTX[0])
        both = {"body": params, "reader": net.init(key_reader, jnp.zeros((1, 2, body.features + V)))}
        return both, backbone_lib.start(body, params, batch.x_BTX)

    def state_size(length: int) -> int:
        tokens_BLI = jax.ShapeDtypeStruct((1, 2, body.features + V), jnp.float32)
        support = spec.length * spec.shots // (spec.shots + spec.queries)
        return net.state_size(jax.eval_shape(net.init, jax.random.key(0), tokens_BLI), support)

    return support_query.in_one_pass(spec, init, outputs, state_size, any_ways=False)


def read(net: network_nn.Network, params: PyTree, tokens_BLI: Array, support: int) -> Array:
    """Outputs (B, Q, V) of the tokens after the first `support` ones."""
    num, L, _ = tokens_BLI.shape
    if net.masks:
        return net.apply(params, None, tokens_BLI, mask_LL=mask(support, L - support), last=L - support)[1]
    state, _ = net.apply(params, net.initial_state(params, num, L), tokens_BLI[:, :support])
    return jax.vmap(lambda query_BI: net.step(params, state, query_BI)[1], 1, 1)(tokens_BLI[:, support:])


def mask(S: int, Q: int) -> np.ndarray:
    """(S + Q, S + Q), readers by what they read: everyone reads the support, a query also itself."""
    return (np.arange(S + Q)[None] < S) | np.eye(S + Q, dtype=bool)
