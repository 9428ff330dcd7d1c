"""In-context learning on an embedding (the idea of SNAIL, Mishra et al. 2018, with a set Transformer as the reader).

Tokens are [embedding, label] for the support and [embedding, 0] for the queries. Support tokens see each other;
a query sees the support and itself, so queries do not help each other, and order does not matter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.learning import support_query
from metalearn.nn import addressing
from metalearn.nn import backbone as backbone_lib
from metalearn.nn.transformer import Transformer
from metalearn.types import Episodes, Learner
from metalearn.validate import multiple_of, positive


def make(facts, *, backbone: dict, depth: int, width: int, num_heads: int, mlp: int) -> Learner:
    """The learner: `backbone` embeds each example, a Transformer of these sizes reads the episode."""
    support_query.need(facts, fixed_ways=True)
    positive(depth=depth, width=width, num_heads=num_heads, mlp=mlp)
    multiple_of("num_heads", num_heads, width=width)
    body = backbone_lib.make(backbone, facts)
    V = support_query.num_outputs(facts)
    reader = Transformer(V, depth, width, num_heads, mlp)

    def outputs(params, carry, batch: Episodes, train: bool):
        x_BSX, y_BS, x_BQX, _ = support_query.parts(facts, batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(body, params["body"], carry, x_BSX, x_BQX, train)
        S, Q = h_BSD.shape[1], h_BQD.shape[1]
        y_BSV = jax.nn.one_hot(y_BS, V) if "ways" in facts else y_BS
        label_BLV = jnp.concatenate([y_BSV, jnp.zeros((len(y_BSV), Q, V))], 1)
        # as long as a label, which hundreds of features would drown: then nothing is learned for thousands of updates
        h_BLD = addressing.unit(jnp.concatenate([h_BSD, h_BQD], 1), 1e-6)
        tokens_BLI = jnp.concatenate([h_BLD, label_BLV], -1) * h_BLD.shape[-1] ** 0.5
        out_BQV = reader.apply({"params": params["reader"]}, tokens_BLI, mask(S, Q), Q)
        return out_BQV, carry

    def init(key, batch: Episodes):
        key_body, key_reader = jax.random.split(key)
        params = body.init(key_body, batch.x_BTX[0])
        tokens_BLI = jnp.zeros((1, 2, body.features + V))
        both = {"body": params, "reader": reader.init(key_reader, tokens_BLI)["params"]}
        return both, backbone_lib.start(body, params, batch.x_BTX)

    support = facts["length"] * facts["shots"] // (facts["shots"] + facts["queries"])
    return support_query.in_one_pass(facts, init, outputs, lambda length: 2 * width * depth * support)


def mask(S: int, Q: int) -> np.ndarray:
    """(S + Q, S + Q), readers by what they read: everyone reads the support, a query also itself."""
    return (np.arange(S + Q)[None] < S) | np.eye(S + Q, dtype=bool)
