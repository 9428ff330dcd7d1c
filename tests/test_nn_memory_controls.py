"""The controls."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import memory


def test_the_gate_starts_almost_shut_and_does_not_know_the_marker():
    core = memory.make(dict(name="gated", width=3, bias=-3.0), outputs=2)
    x_TBX = jnp.zeros((1, 2, 4)).at[0, 1, -1].set(1.0)
    params = core.init(jax.random.key(0), x_TBX)
    gate_TB1 = core.hoist(params, x_TBX)[1]
    np.testing.assert_allclose(gate_TB1, 1 / (1 + np.exp(3)), rtol=1e-5)
    opened = core.hoist(params | {"w": jnp.float32(6.0)}, x_TBX)[1]
    assert opened[0, 1, 0] > 0.9 and opened[0, 0, 0] < 0.1


def test_the_lstm_is_an_lstm():
    core = memory.make(dict(name="lstm", hidden=2), outputs=1)
    x_TBX = jax.random.normal(jax.random.key(0), (1, 1, 3))
    params = core.init(jax.random.key(1), x_TBX)
    state, _ = memory.unroll(core, params, core.start(params, 1), x_TBX)
    z = np.asarray(x_TBX[0, 0]) @ np.asarray(params["project"]["kernel"]) + np.asarray(params["project"]["bias"])
    i, f, g, o = np.split(z, 4)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    c = sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(state["output"]["c"][0], c, rtol=1e-5)
    np.testing.assert_allclose(state["output"]["h"][0], sigmoid(o) * np.tanh(c), rtol=1e-5)
