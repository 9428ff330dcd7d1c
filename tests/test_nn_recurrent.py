"""Recurrent networks: the outer-product LSTM against numpy, and a carry that goes on where it stopped."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import recurrent

H, K, B, L, I = 2, 3, 2, 5, 4
CELLS = dict(lstm=(nn.OptimizedLSTMCell(6), 6), outer=(recurrent.OuterProductLSTMCell(K, H), H * K))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_outer_product_cell_is_its_formula():
    rng = np.random.default_rng(0)
    x, h, C = rng.normal(size=(B, 6)), rng.normal(size=(B, H * K)), rng.normal(size=(B, H, K, K))
    cell = recurrent.OuterProductLSTMCell(K, H)
    params = cell.init(jax.random.key(0), (C, h), x)["params"]
    params["scale"] = jnp.asarray(rng.normal(size=(3, H)), jnp.float32)
    (new_C, new_h), out = cell.apply({"params": params}, (jnp.float32(C), jnp.float32(h)), jnp.float32(x))
    z = np.concatenate([x, h], -1) @ params["gates"]["kernel"] + params["gates"]["bias"]
    expected_C, expected_h = np.zeros_like(C), np.zeros_like(h)
    for b in range(B):
        for n in range(H):
            a_i, a_g, a_f, b_i, b_g, b_f, q, o = z[b].reshape(H, 8, K)[n]
            w_i, w_g, w_f = np.log1p(np.exp(np.asarray(params["scale"], np.float64)))[:, n]
            gate = lambda a, w, b: np.outer(np.tanh(a) * w, np.tanh(b))
            i, g, f = sigmoid(gate(a_i, w_i, b_i)), gate(a_g, w_g, b_g), sigmoid(gate(a_f, w_f, b_f) + 1)
            expected_C[b, n] = f * C[b, n] + i * g
            expected_h[b, n * K:(n + 1) * K] = sigmoid(o) * np.tanh(expected_C[b, n].T @ q)
    np.testing.assert_allclose(new_C, expected_C, atol=1e-5)
    np.testing.assert_allclose(new_h, expected_h, atol=1e-5)
    np.testing.assert_array_equal(out, new_h)


@pytest.mark.parametrize("name", CELLS)
def test_two_halves_with_the_carry_between_them_are_the_whole(name):
    cell, width = CELLS[name]
    net = recurrent.Recurrent(3, cell, width)
    tokens = jax.random.normal(jax.random.key(0), (B, L, I))

    @jax.jit
    def both(key):
        params = net.init(key, tokens)
        carry, first = net.apply(params, tokens[:, :2], net.apply(params, B, method="start"))
        last, second = net.apply(params, tokens[:, 2:], carry)
        forgotten = net.apply(params, tokens[:, 2:])[1]
        return net.apply(params, tokens), (last, jnp.concatenate([first, second], 1)), second - forgotten

    (carry, whole), (last, parts), off = both(jax.random.key(1))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), last, carry)
    assert whole.dtype == jnp.float32 and whole.shape == (B, L, 3) and np.abs(off).max() > 1e-3
