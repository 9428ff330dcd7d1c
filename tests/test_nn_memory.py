"""What holds for every memory core, whatever its addressing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import memory
from metalearn.validate import ConfigError

B, X, T = 3, 5, 4
SLOTS = dict(slots=6, width=4, hidden=5, controller="lstm", memory="constant")
NETWORKS = {
    "nse": dict(name="nse", similarity="dot", **SLOTS),
    "nse_ffn": dict(name="nse", similarity="cosine", **SLOTS | dict(controller="ffn", memory="learned")),
    "ntm": dict(name="ntm", reads=2, shifts=1, **SLOTS),
    "lrua": dict(name="lrua", reads=2, decay=0.95, adds="own", **SLOTS),
    "dnc": dict(name="dnc", reads=2, links=True, **SLOTS),
    "lstm": dict(name="lstm", hidden=4),
    "outer_lstm": dict(name="outer_lstm", size=3, num_heads=2),
    "gated": dict(name="gated", width=4, bias=-3.0),
}


@pytest.fixture(scope="module", params=NETWORKS)
def parts(request):
    core = memory.make(NETWORKS[request.param], outputs=2)
    x_TBX = jax.random.normal(jax.random.key(0), (T, B, X))
    params = core.init(jax.random.key(1), x_TBX)
    run = jax.jit(lambda params, x: memory.unroll(core, params, core.start(params, x.shape[1]), x, weights=True))
    return core, params, x_TBX, run


def test_compiled_is_eager_and_weightings_are_weightings(parts):
    core, params, x_TBX, run = parts
    state, out, seen = run(params, x_TBX)
    with jax.disable_jit():
        eager = memory.unroll(core, params, core.start(params, B), x_TBX, weights=True)
    for a, b in zip(jax.tree.leaves((state, out)), jax.tree.leaves(eager[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    for name, w in seen.items():
        assert (w >= -1e-6).all(), name
    assert out.shape == (T, B, 2)


def test_episodes_do_not_touch_each_other_and_a_reset_leaks_nothing(parts):
    _, params, x_TBX, run = parts
    _, out, _ = run(params, x_TBX)
    _, other, _ = run(params, x_TBX.at[:, 1:].set(7.0))
    np.testing.assert_array_equal(out[:, 0], other[:, 0])
    np.testing.assert_array_equal(run(params, x_TBX)[1], out)


def test_the_past_decides_not_the_future(parts):
    _, params, x_TBX, run = parts
    _, out, _ = run(params, x_TBX)
    _, other, _ = run(params, x_TBX.at[-1].set(5.0))
    np.testing.assert_array_equal(out[:-1], other[:-1])
    assert not np.allclose(out[-1], other[-1])


def test_state_size_counts_the_state(parts):
    core, params, *_ = parts
    assert memory.state_size(core, params) == sum(leaf.size for leaf in jax.tree.leaves(core.start(params, 1)))


def test_permuting_the_slots_of_nse_permutes_its_memory():
    core = memory.make(NETWORKS["nse"], outputs=2)
    x_BX, order = jax.random.normal(jax.random.key(0), (B, X)), jnp.array([4, 0, 3, 5, 1, 2])
    params = core.init(jax.random.key(1), x_BX[None])
    state = core.start(params, B)
    mixed = state | {"memory": {"M": state["memory"]["M"][:, order]}}
    u = core.hoist(params, x_BX)
    (a, y, _), (b, z, _) = core.step(params, state, u), core.step(params, mixed, u)
    np.testing.assert_allclose(a["memory"]["M"][:, order], b["memory"]["M"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("field,value", [("slots", 0), ("width", 0), ("hidden", -1), ("controller", "gru"),
                                         ("memory", "ones")])
def test_bad_sizes_are_one_clear_line(field, value):
    with pytest.raises(ConfigError, match=f"network.{field}"):
        memory.make(NETWORKS["nse"] | {field: value}, outputs=2)
