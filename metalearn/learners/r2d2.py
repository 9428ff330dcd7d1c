"""R2-D2 (Bertinetto et al. 2019): ridge regression on the embedded support, in closed form, as the inner learner.

W = X^T (X X^T + penalty)^-1 Y, so the system is as large as the support, not as the embedding; logits are
`scale` * (query W) + bias. Penalty, scale and bias are learnt.
"""

import jax
import jax.numpy as jnp

from metalearn.learning import support_query
from metalearn.nn import backbone as backbone_lib
from metalearn.types import Array, Episodes, Learner
from metalearn.validate import positive


def make(spec, *, backbone: dict, penalty: float, scale: float) -> Learner:
    """The learner; `penalty` and `scale` are where the learnt ones start."""
    support_query.need(spec)
    positive(penalty=penalty, scale=scale)
    net = backbone_lib.make(backbone, spec)

    def outputs(params, carry, batch: Episodes, train: bool):
        x_BSX, y_BS, x_BQX, _ = support_query.parts(batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(net, params["body"], carry, x_BSX, x_BQX, train)
        y_BSV = jax.nn.one_hot(y_BS, batch.ways) if spec.classes else y_BS
        out_BQV = jax.vmap(ridge, (0, 0, 0, None))(h_BSD, y_BSV, h_BQD, jnp.exp(params["log_penalty"]))
        return jnp.exp(params["log_scale"]) * out_BQV + params["bias"], carry

    def init(key, batch: Episodes):
        body = net.init(key, batch.x_BTX[0])
        params = {"body": body, "log_penalty": jnp.log(jnp.float32(penalty)), "log_scale": jnp.log(jnp.float32(scale)),
                  "bias": jnp.zeros(())}
        return params, backbone_lib.start(net, body, batch.x_BTX)

    return support_query.in_one_pass(spec, init, outputs, lambda length: net.features * spec.outputs, any_ways=True)


def ridge(h_SD: Array, y_SV: Array, h_QD: Array, penalty: Array) -> Array:
    """Ridge regression fitted on (h_SD, y_SV) with a constant feature, at h_QD: (Q, V)."""
    one = lambda h: jnp.concatenate([h, jnp.ones((h.shape[0], 1))], -1)
    h_SD, h_QD = one(h_SD), one(h_QD)
    gram_SS = h_SD @ h_SD.T + penalty * jnp.eye(h_SD.shape[0])
    return h_QD @ (h_SD.T @ jax.scipy.linalg.solve(gram_SS, y_SV, assume_a="pos"))
