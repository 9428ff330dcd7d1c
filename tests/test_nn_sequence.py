"""Networks by name: what each refuses, and the state it says a later prediction can read."""

import jax
import jax.numpy as jnp
import pytest

from metalearn.nn import sequence
from metalearn.validate import ConfigError

TRANSFORMER = dict(name="transformer", depth=1, width=8, num_heads=2, mlp=8, positions=False)
VSML = dict(name="vsml", hidden=2, messages=2, ticks=1)


def make(network, layout="shifted"):
    return sequence.make(network, ways=3, features=4, layout=layout, slots=5, dtype=jnp.float32)


@pytest.mark.parametrize("network, text", [
    (dict(name="gru"), "network.name=gru.*transformer"), (dict(), "network.name="),
    (TRANSFORMER | dict(num_heads=3), "network.width=8.*num_heads"), (TRANSFORMER | dict(depth=0), "network.depth=0"),
    (TRANSFORMER | dict(heads=2), "network.heads.*num_heads"), (dict(name="lstm", width=-1), "network.width=-1"),
    (dict(name="lstm"), "network.width"), (dict(name="outer_lstm", size=0, num_heads=1), "network.size=0"),
    (VSML | dict(ticks=0), "network.ticks=0"), (dict(name="mlp", width=0), "network.width=0"),
    (dict(name="vsml_nosym", grid=0, hidden=1, messages=1, ticks=1), "network.grid=0")])
def test_refusals(network, text):
    with pytest.raises(ConfigError, match=text):
        make(network)


def test_only_vsml_asks_for_a_layout():
    with pytest.raises(ConfigError, match="shifted"):
        make(VSML, "pair")
    assert make(dict(name="lstm", width=2), "pair").stream_query is None


@pytest.mark.parametrize("network, size", [
    (TRANSFORMER, 2 * 8 * 1 * 7), (TRANSFORMER | dict(depth=3), 2 * 8 * 3 * 7), (dict(name="lstm", width=6), 12),
    (dict(name="outer_lstm", size=3, num_heads=2), 2 * 9 + 2 * 3), (dict(name="mlp", width=4), 0),
    (VSML, 4 * 3 * 2 * 2 + (4 + 3) * 2)])
def test_state_sizes_by_hand(network, size):
    """Keys and values of every position and block; cell and hidden state; both sides' messages beside the grid."""
    net = make(network)
    assert net.state_size(7) == size
    params = jax.eval_shape(lambda k: net.init(k, jnp.zeros((1, 5, 7))), jax.random.key(0))
    state = jax.eval_shape(lambda p: net.stream_init(p, 1, 7), params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == size
