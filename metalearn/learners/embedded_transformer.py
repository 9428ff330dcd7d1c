"""In-context learning on an embedding (the idea of SNAIL, Mishra et al. 2018, with a set Transformer as the reader).

Tokens are [embedding, label] for the support and [embedding, 0] for the queries. Support tokens see each other;
a query sees the support and itself, so queries do not help each other, and order does not matter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import lookup
from metalearn.learning import support_query
from metalearn.nn import addressing
from metalearn.nn import backbone as backbone_lib
from metalearn.nn import network as network_nn
from metalearn.types import Episodes, Learner


def make(spec, *, backbone: dict, depth: int, width: int, num_heads: int, mlp: int) -> Learner:
    """The learner: `backbone` embeds each example, a Transformer of these sizes reads the episode."""
    support_query.need(spec, fixed_ways=True)
    body = backbone_lib.make(backbone, spec)
    V = spec.outputs
    made_for = network_nn.NetworkSpec(V, body.features, "support_query", spec.length, "float32", 1)
    sizes = dict(depth=depth, width=width, num_heads=num_heads, mlp=mlp, positions=False)
    reader = lookup.build("networks", "transformer", made_for, **sizes)

    def outputs(params, carry, batch: Episodes, train: bool):
        x_BSX, y_BS, x_BQX, _ = support_query.parts(batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(body, params["body"], carry, x_BSX, x_BQX, train)
        S, Q = h_BSD.shape[1], h_BQD.shape[1]
        y_BSV = jax.nn.one_hot(y_BS, V) if spec.classes else y_BS
        label_BLV = jnp.concatenate([y_BSV, jnp.zeros((len(y_BSV), Q, V))], 1)
        # as long as a label, which hundreds of features would drown: then nothing is learned for thousands of updates
        h_BLD = addressing.unit(jnp.concatenate([h_BSD, h_BQD], 1), 1e-6)
        tokens_BLI = jnp.concatenate([h_BLD, label_BLV], -1) * h_BLD.shape[-1] ** 0.5
        _, out_BQV = reader.apply(params["reader"], None, tokens_BLI, mask_LL=mask(S, Q), last=Q)
        return out_BQV, carry

    def init(key, batch: Episodes):
        key_body, key_reader = jax.random.split(key)
        params = body.init(key_body, batch.x_BTX[0])
        tokens_BLI = jnp.zeros((1, 2, body.features + V))
        both = {"body": params, "reader": reader.init(key_reader, tokens_BLI)}
        return both, backbone_lib.start(body, params, batch.x_BTX)

    support = spec.length * spec.shots // (spec.shots + spec.queries)
    return support_query.in_one_pass(spec, init, outputs, lambda length: 2 * width * depth * support, any_ways=False)


def mask(S: int, Q: int) -> np.ndarray:
    """(S + Q, S + Q), readers by what they read: everyone reads the support, a query also itself."""
    return (np.arange(S + Q)[None] < S) | np.eye(S + Q, dtype=bool)
