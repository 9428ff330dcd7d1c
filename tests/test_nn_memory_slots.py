"""Slot memories over many steps: weightings stay weightings."""

import jax
import numpy as np
import pytest

from metalearn.nn import memory
from metalearn.validate import ConfigError

SIZES = dict(slots=5, width=3, hidden=4, reads=2, controller="lstm", memory="learned")


LRUA = dict(name="lrua", decay=0.95, adds="key")
NETWORKS = [dict(name="ntm", shifts=1), LRUA, dict(name="dnc", links=True)]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n["name"])
def test_weightings_stay_on_the_simplex(network):
    core = memory.make(network | SIZES, outputs=2)
    x_TBX = 3 * jax.random.normal(jax.random.key(0), (30, 2, 4))
    params = core.init(jax.random.key(1), x_TBX)
    run = jax.jit(lambda p: memory.unroll(core, p, core.start(p, 2), x_TBX, weights=True))
    state, out, seen = run(params)
    read = np.asarray(seen["read"]).sum(2)
    assert np.isfinite(out).all() and (read <= 1 + 1e-4).all()
    if network["name"] != "dnc":  # DNC's reads may add up to less than 1
        np.testing.assert_allclose(read, 1, rtol=1e-4)
    else:
        usage, L = np.asarray(state["memory"]["usage"]), np.asarray(state["link"]["L"])
        assert (usage >= 0).all() and (usage <= 1).all()
        assert (L.sum(1) <= 1 + 1e-4).all() and (L.sum(2) <= 1 + 1e-4).all() and not np.diagonal(L, 0, 1, 2).any()


@pytest.mark.parametrize("network,field", [(dict(name="ntm", shifts=3), "shifts"),
                                           (LRUA | dict(decay=2.0), "decay"),
                                           (LRUA | dict(adds="sum"), "adds"),
                                           (dict(name="dnc", links=True, reads=0), "reads")])
def test_bad_sizes_are_one_clear_line(network, field):
    with pytest.raises(ConfigError, match=f"network.{field}"):
        memory.make(SIZES | network, outputs=2)


def test_what_lrua_has_just_written_it_can_read_and_blank_slots_are_like_no_key():
    core = memory.make(SIZES | LRUA | dict(adds="own", memory="flat", reads=1), outputs=2)
    x_TBX = jax.random.normal(jax.random.key(0), (1, 2, 4))
    params = core.init(jax.random.key(1), x_TBX)
    assert (np.asarray(core.start(params, 2)["memory"]["M"]) == np.float32(1e-6)).all()
    state, _, seen = memory.unroll(core, params, core.start(params, 2), x_TBX, weights=True)
    write_BM, read_BM = np.asarray(seen["write"])[0, ..., 0], np.asarray(seen["read"])[0, ..., 0]
    np.testing.assert_allclose(write_BM[:, 1:], 0, atol=1e-6)  # read first, and least used first: slot 0
    np.testing.assert_allclose(read_BM[:, 1:], read_BM[:, 1:2].repeat(4, 1), rtol=1e-3)  # blank slots all alike
    assert (abs(read_BM[:, 0] - read_BM[:, 1]) > 1e-3).all()  # what this step wrote already counts
    np.testing.assert_allclose(state["read"]["r"], np.einsum("bm,bmw->bw", read_BM, state["memory"]["M"]), rtol=1e-5)
