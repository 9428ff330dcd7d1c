"""Prototypical networks (Snell et al. 2017): a query belongs to the class whose mean embedding is nearest."""

import jax
import jax.numpy as jnp

from metalearn.learning import support_query
from metalearn.nn import backbone as backbone_lib
from metalearn.types import Array, Episodes, Learner


def make(spec, *, backbone: dict) -> Learner:
    """The learner; `backbone` is {"name": conv4 | resnet12 | mlp | pixels, ...}, see `nn.backbone`.

    Logits are minus the squared Euclidean distance. Any number of ways, in training and in prediction.
    """
    support_query.need(spec, classification=True)
    net = backbone_lib.make(backbone, spec)

    def logits(params, carry, batch: Episodes, train: bool):
        x_BSX, y_BS, x_BQX, _ = support_query.parts(batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(net, params, carry, x_BSX, x_BQX, train)
        return distances(h_BSD, y_BS, h_BQD, batch.ways), carry

    def init(key, batch: Episodes):
        params = net.init(key, batch.x_BTX[0])
        return params, backbone_lib.start(net, params, batch.x_BTX)

    return support_query.in_one_pass(spec, init, logits, lambda length: net.features * spec.outputs, any_ways=True)


def distances(h_BSD: Array, y_BS: Array, h_BQD: Array, ways: int) -> Array:
    """Minus the squared distance of each query to each class mean, (B, Q, V)."""
    y_BSV = jax.nn.one_hot(y_BS, ways)
    mean_BVD = jnp.einsum("bsv,bsd->bvd", y_BSV, h_BSD) / y_BSV.sum(1)[..., None]
    cross_BQV = jnp.einsum("bqd,bvd->bqv", h_BQD, mean_BVD)
    return 2 * cross_BQV - (h_BQD**2).sum(-1)[..., None] - (mean_BVD**2).sum(-1)[:, None]
