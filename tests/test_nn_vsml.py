"""The grid of shared LSTMs: one step by hand, a carry that goes on, and which symmetries each form has."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import vsml

R, C, B, L = 3, 2, 2, 4
CELL = vsml.GridCell(R, C, hidden=4, messages=2, ticks=2)


def test_a_step_sends_the_mean_over_the_other_side():
    """Every cell of the grid runs the same LSTM on its row's and column's messages; a cell alone is enough to know."""
    rng = np.random.default_rng(0)
    row, column = jnp.float32(rng.normal(size=(1, R, 1))), jnp.float32(rng.normal(size=(1, C, 1)))
    one = vsml.GridCell(R, C, hidden=4, messages=2, ticks=1)
    carry = one.initialize_carry(None, (1,))
    params = one.init(jax.random.key(0), carry, (row, column))
    (_, h, to_row, _), to_column = one.apply(params, carry, (row, column))
    single = vsml.GridCell(1, 1, hidden=4, messages=2, ticks=1)
    start = single.initialize_carry(None, (1,))
    sent = np.zeros((R, C, 2, 2))
    for r in range(R):
        for c in range(C):
            (_, alone, to_r, _), to_c = single.apply(params, start, (row[:, r:r + 1], column[:, c:c + 1]))
            np.testing.assert_allclose(h[0, r, c], alone[0, 0, 0], atol=1e-6)
            sent[r, c] = to_r[0, 0], to_c[0, 0]
    np.testing.assert_allclose(to_row[0], sent[:, :, 0].mean(1), atol=1e-6)
    np.testing.assert_allclose(to_column[0], sent[:, :, 1].mean(0), atol=1e-6)


def test_two_halves_with_the_carry_between_them_are_the_whole():
    tokens = jax.random.normal(jax.random.key(0), (B, L, R + C))
    for net in (vsml.SymmetricVSML(CELL), vsml.LinearVSML(C, vsml.GridCell(2, 2, hidden=4, messages=2, ticks=1))):
        params = net.init(jax.random.key(1), tokens)
        _, whole = net.apply(params, tokens)
        carry, first = net.apply(params, tokens[:, :2])
        _, second = net.apply(params, tokens[:, 2:], carry)
        np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6)
        assert whole.shape == (B, L, C) and np.abs(net.apply(params, tokens[:, 2:])[1] - second).max() > 1e-5


def test_only_the_symmetric_form_ignores_the_order_of_inputs():
    tokens = jax.random.normal(jax.random.key(0), (B, L, R + C))
    mixed = tokens[..., jnp.asarray([2, 0, 1, 3, 4])]
    off = {}
    for net in (vsml.SymmetricVSML(CELL), vsml.LinearVSML(C, vsml.GridCell(2, 2, hidden=4, messages=2, ticks=1))):
        params = net.init(jax.random.key(1), tokens)
        a, b = net.apply(params, tokens)[1], net.apply(params, mixed)[1]
        off[type(net).__name__] = float(jnp.abs(a - b).max())
    assert off["SymmetricVSML"] < 1e-6 and off["LinearVSML"] > 1e-4
