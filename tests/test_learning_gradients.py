"""From a loss to `grads`: the slope by hand, with carry and means handed through."""

import jax.numpy as jnp
import numpy as np

from metalearn.learning.gradients import grads_from_loss


def test_grads_from_loss():
    def loss(params, carry, batch, key):
        return (params["w"] * batch).sum() ** 2 + key * params["w"].sum(), (carry + 1, {"seen": batch.sum()})

    w, x = jnp.array([1.0, -2.0]), jnp.array([3.0, 1.0])
    grads, carry, means = grads_from_loss(loss)({"w": w}, jnp.asarray(4), x, 0.5)
    np.testing.assert_allclose(grads["w"], 2 * (w @ x) * x + 0.5)
    assert carry == 5 and means == {"seen": 4.0}
