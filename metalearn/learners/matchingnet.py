"""Matching networks (Vinyals et al. 2016) without full-context embeddings: attention over the support's labels.

A query's label distribution is the support's labels weighted by a softmax over `scale` times the cosine similarity;
`scale` is learnt (the paper's is 1, which trains slowly).
"""

import jax
import jax.numpy as jnp

from metalearn.learning import support_query
from metalearn.nn import addressing, backbone as backbone_lib
from metalearn.types import Episodes, Learner
from metalearn.validate import positive


def make(spec, *, backbone: dict, scale: float) -> Learner:
    """The learner; `scale` is where the learnt factor on the similarities starts."""
    support_query.need(spec, classification=True)
    positive(scale=scale)
    net = backbone_lib.make(backbone, spec)

    def logits(params, carry, batch: Episodes, train: bool):
        x_BSX, y_BS, x_BQX, _ = support_query.parts(batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(net, params["body"], carry, x_BSX, x_BQX, train)
        cosine_BQS = jnp.einsum("bqd,bsd->bqs", addressing.unit(h_BQD), addressing.unit(h_BSD))
        similar_BQS = jnp.exp(params["log_scale"]) * cosine_BQS
        member_BSV = jax.nn.one_hot(y_BS, batch.ways)
        # the log of sum over a class of softmax weights: a logsumexp, so that no probability underflows
        return jax.nn.logsumexp(similar_BQS[..., None], 2, b=member_BSV[:, None]) - jax.nn.logsumexp(
            similar_BQS, 2)[..., None], carry

    def init(key, batch: Episodes):
        body = net.init(key, batch.x_BTX[0])
        return {"body": body, "log_scale": jnp.log(jnp.float32(scale))}, backbone_lib.start(net, body, batch.x_BTX)

    return support_query.in_one_pass(spec, init, logits, lambda length: net.features * spec.outputs * spec.shots,
                                     any_ways=True)
