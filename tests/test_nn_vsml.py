"""The grid of shared LSTMs: one step by hand, and which symmetries each network on it has."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import network, vsml

R, C = 3, 2


def random_state(cell, num):
    leaves = lambda key, tree: jax.tree.map(lambda a: jax.random.normal(jax.random.fold_in(key, a.size), a.shape), tree)
    return leaves(jax.random.key(3), cell.initial_state(num))


def test_a_step_sends_the_mean_over_the_other_side():
    """Every cell of the grid runs the same LSTM on its row's and column's messages; a cell alone is enough to know."""
    rng = np.random.default_rng(0)
    row, column = jnp.float32(rng.normal(size=(1, R, 1))), jnp.float32(rng.normal(size=(1, C, 1)))
    one = vsml.GridCell(R, C, hidden=4, messages=2, ticks=1)
    params = one.init(jax.random.key(0), one.initial_state(1), row, column)
    state, to_column = one.apply(params, one.initial_state(1), row, column)
    single = vsml.GridCell(1, 1, hidden=4, messages=2, ticks=1)
    sent = np.zeros((R, C, 2, 2))
    for r in range(R):
        for c in range(C):
            alone, to_c = single.apply(params, single.initial_state(1), row[:, r:r + 1], column[:, c:c + 1])
            np.testing.assert_allclose(state["grid"]["h"][0, r, c], alone["grid"]["h"][0, 0, 0], atol=1e-6)
            sent[r, c] = alone["messages"]["row"][0, 0], to_c[0, 0]
    np.testing.assert_allclose(state["messages"]["row"][0], sent[:, :, 0].mean(1), atol=1e-6)
    np.testing.assert_allclose(to_column[0], sent[:, :, 1].mean(0), atol=1e-6)


def test_the_grid_commutes_with_permutations_of_its_rows():
    cell, order = vsml.GridCell(R, C, hidden=4, messages=2, ticks=2), jnp.asarray([2, 0, 1])
    state = random_state(cell, 1)
    row, column = jax.random.normal(jax.random.key(1), (1, R, 1)), jax.random.normal(jax.random.key(2), (1, C, 1))
    params = cell.init(jax.random.key(0), state, row, column)
    after, out = cell.apply(params, state, row, column)
    mixed = {"grid": {k: a[:, order] for k, a in state["grid"].items()},
             "messages": state["messages"] | {"row": state["messages"]["row"][:, order]}}
    moved, same = cell.apply(params, mixed, row[:, order], column)
    np.testing.assert_allclose(same, out, atol=1e-6)
    np.testing.assert_allclose(moved["messages"]["row"], after["messages"]["row"][:, order], atol=1e-6)
    assert np.abs(moved["messages"]["row"] - after["messages"]["row"]).max() > 1e-4


def test_only_the_symmetric_network_ignores_the_order_of_inputs():
    tokens = jax.random.normal(jax.random.key(0), (2, 4, R + C))
    mixed = tokens[..., jnp.asarray([2, 0, 1, 3, 4])]
    off = {}
    for sizes in (dict(name="vsml"), dict(name="vsml_nosym", grid=2)):
        spec = network.NetworkSpec(C, R, "shifted", 4, "float32", 1)
        net = network.make(sizes | dict(hidden=4, messages=2, ticks=1), spec)
        params = net.init(jax.random.key(1), tokens)
        a, b = (net.apply(params, None, x)[1] for x in (tokens, mixed))
        off[sizes["name"]] = float(jnp.abs(a - b).max())
    assert off["vsml"] < 1e-6 and off["vsml_nosym"] > 1e-4
