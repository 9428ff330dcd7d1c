"""The LSTM and the outer-product LSTM against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import recurrent

H, K, B = 2, 3, 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_outer_product_cell_is_its_formula():
    rng = np.random.default_rng(0)
    x, h, C = rng.normal(size=(B, 6)), rng.normal(size=(B, H * K)), rng.normal(size=(B, H, K, K))
    cell = recurrent.OuterProductLSTMCell(K, H)
    params = cell.init(jax.random.key(0), {"C": C, "h": h}, x)["params"]
    params["scale"] = jnp.asarray(rng.normal(size=(3, H)), jnp.float32)
    state = {"C": jnp.float32(C), "h": jnp.float32(h)}
    new, out = cell.apply({"params": params}, state, jnp.float32(x))
    new_C, new_h = new["C"], new["h"]
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


def test_the_lstm_is_its_formula_and_starts_open():
    cell = recurrent.Controller("lstm", 2)
    x_BI = jax.random.normal(jax.random.key(0), (1, 3))
    state = {"h": jnp.asarray([[0.5, -1.0]]), "c": jnp.asarray([[2.0, -0.3]])}
    params = cell.init(jax.random.key(1), state, x_BI)["params"]
    new, h_BD = cell.apply({"params": params}, state, x_BI)
    z = np.concatenate([x_BI[0], state["h"][0]]) @ np.asarray(params["gates"]["kernel"])
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f + 1) * np.asarray(state["c"][0]) + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(new["c"][0], c, rtol=1e-5)
    np.testing.assert_allclose(h_BD[0], sigmoid(o) * np.tanh(c), rtol=1e-5)
    np.testing.assert_array_equal(new["h"], h_BD)
