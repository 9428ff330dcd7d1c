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


def test_conjugate_gradients_solve_and_say_where_their_premise_fails():
    from metalearn.learners.imaml import conjugate_gradients

    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    b = {"u": jnp.asarray(rng.normal(size=3), jnp.float32), "v": jnp.asarray(rng.normal(size=(1, 1)), jnp.float32)}
    flat = lambda tree: jnp.concatenate([tree["u"], tree["v"].ravel()])
    tree = lambda x: {"u": x[:3], "v": x[3:].reshape(1, 1)}
    for values, positive in (((1.0, 2.0, 3.0, 0.5), True), ((1.0, 2.0, -3.0, 0.5), False)):
        A = jnp.asarray(turn @ np.diag(values) @ turn.T, jnp.float32)
        product = lambda p, A=A: tree(A @ flat(p))
        x, residual, curvature = conjugate_gradients(product, b, 4)
        assert (curvature > 0) == positive and min(values) < curvature + 1e-3
        if positive:  # four directions of four
            np.testing.assert_allclose(flat(x), np.linalg.solve(A, flat(b)), rtol=1e-3)
            assert residual < 1e-3
            again, _, _ = conjugate_gradients(product, b, 9)  # nothing breaks once it has converged
            np.testing.assert_allclose(flat(again), flat(x), rtol=1e-3)
            rough, residual, _ = conjugate_gradients(product, b, 2)
            off = jnp.linalg.norm(flat(b) - A @ flat(rough)) / jnp.linalg.norm(flat(b))
            np.testing.assert_allclose(residual, off, rtol=1e-3)
