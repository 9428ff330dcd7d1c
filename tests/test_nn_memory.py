"""Slot memories: weightings stay weightings, slots may be permuted, a blank memory is like no key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import network, taps

SIZES = dict(slots=5, width=3, hidden=4, reads=2, controller="lstm", memory="learned")
LRUA = dict(name="lrua", decay=0.95, adds="key")
NETWORKS = [dict(name="ntm", shifts=1), LRUA, dict(name="dnc", links=True)]


def make(sizes):
    return network.make(sizes, network.NetworkSpec(2, 4, "x", 30, "float32", 4))


@pytest.mark.parametrize("sizes", NETWORKS, ids=lambda n: n["name"])
def test_weightings_stay_on_the_simplex(sizes):
    net = make(sizes | SIZES)
    x_BTX = 3 * jax.random.normal(jax.random.key(0), (2, 30, 4))
    params = net.init(jax.random.key(1), x_BTX)
    (state, out), seen = jax.jit(taps.read(net.apply))(params, None, x_BTX)
    assert (np.asarray(seen["write_weights_BMR"]) >= -1e-6).all() and seen["write_weights_BMR"].shape[:3] == (2, 30, 5)
    read = np.asarray(seen["read_weights_BMR"]).sum(2)
    assert np.isfinite(out).all() and (read <= 1 + 1e-4).all()
    if sizes["name"] != "dnc":  # DNC's reads may add up to less than 1
        np.testing.assert_allclose(read, 1, rtol=1e-4)
    else:
        usage, L = np.asarray(state["memory"]["usage"]), np.asarray(state["link"]["L"])
        assert (usage >= 0).all() and (usage <= 1).all()
        assert (L.sum(1) <= 1 + 1e-4).all() and (L.sum(2) <= 1 + 1e-4).all() and not np.diagonal(L, 0, 1, 2).any()


def test_what_lrua_has_just_written_it_can_read_and_blank_slots_are_like_no_key():
    net = make(SIZES | LRUA | dict(adds="own", memory="flat", reads=1))
    x_BTX = jax.random.normal(jax.random.key(0), (2, 1, 4))
    params = net.init(jax.random.key(1), x_BTX)
    assert (np.asarray(net.initial_state(params, 2, 1)["memory"]["M"]) == np.float32(1e-6)).all()
    (state, _), seen = taps.read(net.apply)(params, None, x_BTX)
    write_BM, read_BM = (np.asarray(seen[f"{kind}_weights_BMR"])[..., 0].reshape(2, 5) for kind in ("write", "read"))
    np.testing.assert_allclose(write_BM[:, 1:], 0, atol=1e-6)  # read first, and least used first: slot 0
    np.testing.assert_allclose(read_BM[:, 1:], read_BM[:, 1:2].repeat(4, 1), rtol=1e-3)  # blank slots all alike
    assert (abs(read_BM[:, 0] - read_BM[:, 1]) > 1e-3).all()  # what this step wrote already counts
    np.testing.assert_allclose(state["read"]["r"], np.einsum("bm,bmw->bw", read_BM, state["memory"]["M"]), rtol=1e-5)


def test_permuting_the_slots_of_nse_permutes_its_memory():
    net = make(dict(name="nse", slots=6, width=4, hidden=5, controller="lstm", similarity="dot", memory="constant"))
    x_BX, order = jax.random.normal(jax.random.key(0), (3, 4)), jnp.array([4, 0, 3, 5, 1, 2])
    params = net.init(jax.random.key(1), x_BX[:, None])
    state = net.initial_state(params, 3, 1)
    mixed = state | {"memory": {"M": state["memory"]["M"][:, order]}}
    (a, y), (b, z) = net.step(params, state, x_BX), net.step(params, mixed, x_BX)
    np.testing.assert_allclose(a["memory"]["M"][:, order], b["memory"]["M"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


def test_the_gate_starts_almost_shut_and_does_not_know_the_marker():
    """s = g E x after one step from zero: the register moves as much with the marker as without, until w grows."""
    net = make(dict(name="gated", width=3, bias=-3.0))
    x_BX = jnp.asarray([[1.0, 0, 0, 0], [1.0, 0, 0, 1.0]])
    params = net.init(jax.random.key(0), x_BX[:, None])
    start = net.initial_state(params, 2, 1)
    move = lambda params: net.step(params, start, x_BX)[0]["output"]["s"] / (x_BX[:, :3] @ params["embed"]["kernel"])
    np.testing.assert_allclose(move(params), 1 / (1 + np.exp(3)), rtol=1e-5)
    opened = move(params | {"w": jnp.float32(6.0)})
    assert (opened[1] > 0.9).all() and (opened[0] < 0.1).all()
