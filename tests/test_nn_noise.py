"""Cheap random bits: moments, and independence across keys, rows and neighbours; dropout made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import noise

N = 256
KEYS = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), i))(jnp.arange(12))


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(lambda key: noise.binomial(key, (N, N))))(KEYS), np.float64)


def test_moments_are_those_of_a_normal(drawn):
    """Within five standard errors; the fourth is 3 - 2 / 32 by construction."""
    num = drawn.size
    assert abs(drawn.mean()) < 5 * num**-0.5 and abs((drawn**2).mean() - 1) < 5 * (2 / num) ** 0.5
    assert abs((drawn**3).mean()) < 5 * (15 / num) ** 0.5
    assert abs((drawn**4).mean() - (3 - 2 / 32)) < 5 * (96 / num) ** 0.5


def test_every_bit_is_fair():
    words = np.asarray(jax.jit(lambda key: noise.bits(key, (2**16,)))(KEYS[0]))
    shares = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).mean(0)
    assert np.abs(shares - 0.5).max() < 5 * 0.5 / 2**8
    assert len(np.unique(words)) == 2**16  # a bijection of the counter


def test_nothing_is_correlated(drawn):
    """Between keys, at shifts along rows and columns, and between rows: no more than chance allows."""
    flat = drawn.reshape(len(drawn), -1)
    between = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(between).max() < 5 * flat.shape[1] ** -0.5
    for shift in (1, 2, 3, 4, 8, 16, 32, 64, 128):
        for axis in (1, 2):
            mean = (drawn * np.roll(drawn, shift, axis)).mean()
            assert abs(mean) < 5 * drawn.size**-0.5, (shift, axis)
    rows = np.corrcoef(drawn[0]) - np.eye(N)
    assert abs((rows**2).sum() / (N * (N - 1)) * N - 1) < 0.05  # each is 1 / N off by chance


def test_projected_inputs_look_normal(drawn):
    """What the task makes of it: sums over a row, whose squared lengths spread as those of normal entries do."""
    x = np.random.default_rng(0).normal(size=(64, N))
    lengths = ((x @ drawn[0].T / N**0.5) ** 2).mean(1) / (x**2).mean(1)
    assert abs(lengths.mean() - 1) < 0.05 and abs(lengths.std() / (2 / N) ** 0.5 - 1) < 0.35


def test_dropout_keeps_the_mean_and_is_off_when_told():
    drop = lambda **kw: noise.Dropout(0.25, **kw).apply({}, jnp.ones((64, 1024)), rngs={"dropout": jax.random.key(1)})
    kept = np.asarray(drop(deterministic=False))
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    assert abs((kept > 0).mean() - 0.75) < 5 * (0.75 * 0.25 / kept.size) ** 0.5
    assert (np.asarray(drop(deterministic=True)) == 1).all()
