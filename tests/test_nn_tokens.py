"""Parts of a token have the same say, whatever their size and the length that they come with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import tokens


def test_each_part_has_an_equal_share_of_a_token_of_unit_rms():
    key_x, key_y, key_h = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (4000, 32))  # unit spread: mean squared length 32
    y = jax.nn.one_hot(jax.random.randint(key_y, (4000,), 0, 5), 5)
    h = jax.random.normal(key_h, (4000, 3))
    h = h / jnp.linalg.norm(h, axis=-1, keepdims=True)
    token = np.asarray(tokens.join([x, y, h], [32, 1, 1]))
    assert token.shape == (4000, 40) and (token**2).mean() == pytest.approx(1.0, rel=0.02)
    for part in np.split(token, [32, 37], axis=-1):
        assert (part**2).sum(-1).mean() == pytest.approx(40 / 3, rel=0.02)
    w = np.random.default_rng(0).normal(size=(40, 300)) / 40**0.5  # a layer drawn with variance 1 / fan-in
    heard = [np.var(p @ q) for p, q in zip(np.split(token, [32, 37], -1), np.split(w, [32, 37]), strict=True)]
    assert max(heard) / min(heard) < 1.3, heard


def test_a_scale_makes_one_part_louder_and_zeros_stay():
    x, y = jnp.ones((2, 4)), jnp.zeros((2, 3))
    plain, loud = tokens.join([x, y + 1], [4, 3]), tokens.join([x, y + 1], [4, 3], [1.0, 2.0])
    np.testing.assert_allclose(loud[:, 4:], 2 * plain[:, 4:], rtol=1e-6)
    np.testing.assert_array_equal(loud[:, :4], plain[:, :4])
    assert not tokens.join([x, y], [4, 1])[:, 4:].any()
