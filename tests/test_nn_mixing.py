"""Blocks around mixers: what a window holds, what a convolution reads, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import mixing, network
from metalearn.validate import ConfigError

SPEC = network.NetworkSpec(3, 4, "x", 8, "float32", 1)
BLOCK = dict(depth=1, width=8, num_heads=2, mlp=8, conv=2)
FIELDS = {
    "delta": BLOCK | dict(chunk=4, decay="token", erase=True),
    "ttt": BLOCK | dict(chunk=4, layers=1, rate=1.0),
    "window_attention": BLOCK | dict(window=3),
    "titans": BLOCK | dict(chunk=4, variant="lmm", layers=1, momentum=True, decay=True, rate=0.5, clip=1.0,
                           persistent=1, window=3)}


@pytest.mark.parametrize("begins", [False, True])
def test_a_window_holds_the_newest_keys_wherever_segments_are_cut(begins):
    key_BLHK = jnp.arange(10.0)[None, :, None, None]
    state, at, seen = mixing.seen_nothing(1, 3, 1, 1), 0, []
    for length in (1, 4, 2, 3):
        keys_BLHK = key_BLHK[:, at:at + length]
        state, k_BMHK, _, mask = mixing.look_back(state, keys_BLHK, keys_BLHK, at == 0 and begins)
        seen += [np.asarray(k_BMHK)[0, row, 0, 0].tolist() for row in np.asarray(mask)[0, 0]]
        at += length
    assert seen == [list(range(max(0, t - 2), t + 1)) for t in range(10)]


@pytest.mark.parametrize("name,field,value", [
    ("delta", "width", 7), ("delta", "num_heads", 0), ("delta", "chunk", 0), ("delta", "conv", 0),
    ("delta", "decay", "some"),
    ("ttt", "layers", 0), ("ttt", "rate", 0.0), ("titans", "variant", "mad"),
    ("titans", "persistent", -1), ("titans", "clip", -1.0), ("titans", "window", 0), ("window_attention", "window", 0)])
def test_bad_input_is_one_clear_line(name, field, value):
    with pytest.raises(ConfigError, match=f"network.{field}"):
        network.make(dict(name=name) | FIELDS[name] | {field: value}, SPEC)


def test_what_a_titans_memory_lacks_has_no_parameters():
    names = {}
    for gone in ({}, dict(momentum=False), dict(decay=False), dict(persistent=0)):
        net = network.make(dict(name="titans") | FIELDS["titans"] | gone, SPEC)
        params = net.init(jax.random.key(0), jnp.zeros((1, 8, 4)))
        names[next(iter(gone), "")] = {*params, *params["mixers_0"]}
    assert names[""] - names["momentum"] == {"momentum", "momentum_bias"}
    assert names[""] - names["decay"] == {"forget", "forget_bias"}
    assert names[""] - names["persistent"] == {"persistent"}


def test_every_block_of_a_stack_has_its_own_memory():
    net = network.make(dict(name="delta") | FIELDS["delta"] | dict(depth=2), SPEC)
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 4)))
    state, _ = net.apply(params, None, jax.random.normal(jax.random.key(1), (2, 5, 4)))
    first, second = state["memory"]["S_0"], state["memory"]["S_1"]
    assert first.shape == second.shape == (2, 8, 4) and np.abs(first - second).max() > 1e-3
