"""Convolution by patches is the convolution; pooling by reshape is max-pooling, its gradient too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import backbone, conv
from metalearn.types import EpisodeSpec


def _normal(n, *shape):
    return jax.random.normal(jax.random.key(n, impl="threefry2x32"), shape)


@pytest.mark.parametrize("channels,stride", [(3, 1), (3, 2), (conv.FEW, 1), (conv.FEW, 2)])
@pytest.mark.parametrize("side", [1, 3, 7, 8])
def test_patches_are_the_convolution_and_so_is_their_gradient(channels, stride, side):
    with jax.enable_x64(True):
        x_NHWD, kernel = (a.astype(jnp.float64) for a in (_normal(0, 2, side, side, channels),
                                                          _normal(1, 3, 3, channels, 5)))
        run = lambda method: jax.vjp(lambda x, k: conv.conv3x3(x, k, method, stride), x_NHWD, kernel)
        (out, pull), (want, theirs) = run("patches"), run("lax")
        assert out.shape == (2, -(-side // stride), -(-side // stride), 5)
        asked = _normal(2, *out.shape).astype(jnp.float64)
        close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11)
        jax.tree.map(close, (out, pull(asked)), (want, theirs(asked)))


def test_max_pool_and_its_gradient():
    x_NHWD = _normal(0, 2, 7, 6, 3)
    window = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(conv.max_pool(x_NHWD), window(x_NHWD))
    weight = _normal(1, 2, 3, 3, 3)
    slopes = [jax.grad(lambda x, f=f: (f(x) * weight).sum())(x_NHWD) for f in (conv.max_pool, window)]
    np.testing.assert_allclose(*slopes, atol=1e-6)


def _images(side: int) -> EpisodeSpec:
    return EpisodeSpec(length=1, features=side * side, targets="classes", outputs=2, image_shape=(side, side, 1))


@pytest.mark.parametrize("down,side,left", [("max", 28, 1), ("stride", 28, 2), ("stride", 32, 2), ("max", 17, 1)])
def test_features_are_as_many_as_said(down, side, left):
    block = dict(name="conv4", width=4, depth=4, norm="batch", conv="patches", down=down)
    net = backbone.make(block, _images(side))
    x_NX = _normal(0, 2, side, side, 1)
    h_ND, stats = jax.eval_shape(lambda x_NX: net.apply(net.init(jax.random.key(0), x_NX), x_NX), x_NX)
    assert h_ND.shape == (2, net.features) == (2, left * left * 4) and len(stats) == 4


def test_a_context_of_zeros_is_none_and_each_entry_of_another_counts():
    block = dict(name="conv4", width=4, depth=1, norm="batch", conv="patches", down="max")
    net = backbone.make(block, _images(8))
    x_NX, none_C = _normal(0, 3, 8, 8, 1), jnp.zeros(20)
    params = jax.jit(net.init)(jax.random.key(0), x_NX, none_C)
    of_context = jax.jit(lambda context_C: net.apply(params, x_NX, None, context_C)[0])
    np.testing.assert_allclose(of_context(none_C), jax.jit(net.apply)(params, x_NX)[0], rtol=1e-6, atol=1e-6)
    # scale and shift of 4 channels leave 8 directions of the 20
    assert np.linalg.matrix_rank(jax.jit(jax.jacobian(of_context))(none_C).reshape(-1, 20), tol=1e-3) == 20
