"""Losses and scores against numpy written out."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import losses
from metalearn.types import Mean

rng = np.random.default_rng(0)
LOGITS_BTV = rng.normal(size=(2, 3, 4)).astype(np.float32)
Y_BT = np.array([[0, 1, 3], [2, 2, 0]])
MASK_BT = np.array([[1, 0, 1], [1, 1, 0]], np.float32)


def by_hand():
    p = np.exp(LOGITS_BTV.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(p, Y_BT[..., None], -1)[..., 0])


def test_cross_entropy():
    np.testing.assert_allclose(losses.cross_entropy(LOGITS_BTV, Y_BT), by_hand(), rtol=1e-5)
    assert losses.cross_entropy(jnp.asarray(LOGITS_BTV, jnp.bfloat16), Y_BT).dtype == jnp.float32
    far = losses.cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    np.testing.assert_allclose(far, 2e4)


def test_classification_counts_masked_positions_only():
    loss, means = losses.classification(jnp.asarray(LOGITS_BTV), jnp.asarray(Y_BT), jnp.asarray(MASK_BT))
    np.testing.assert_allclose(loss, (by_hand() * MASK_BT).sum() / 4, rtol=1e-5)
    np.testing.assert_allclose(means["loss"].compute(), loss)
    hit = LOGITS_BTV.argmax(-1) == Y_BT
    np.testing.assert_allclose(means["accuracy"].compute(), (hit * MASK_BT).sum() / 4)
    assert means["last"].count == 1 and means["last"].total == float(hit[0, -1])


def test_means_merge():
    values, mask = rng.normal(size=10).astype(np.float32), np.arange(10) % 3 > 0
    whole, parts = Mean.of(values, mask), [Mean.of(values[s], mask[s]) for s in (slice(0, 3), slice(3, 10))]
    merged = jax.tree.map(lambda a, b: a + b, *parts)
    np.testing.assert_allclose(merged.compute(), whole.compute(), rtol=1e-6)
    np.testing.assert_allclose(whole.compute(), values[mask].mean(), rtol=1e-6)
    assert Mean.of(values, np.zeros(10)).compute() == 0  # nothing counted is no NaN


def test_ties_go_to_the_first_class():
    np.testing.assert_array_equal(losses.correct(jnp.zeros((2, 3)), jnp.array([0, 1])), [1, 0])


def test_position_correct():
    outputs, bits = jnp.array([2.0, -1.0, -3.0, 0.5]), jnp.array([1.0, 0.0, 1.0, 1.0])
    assert losses.position_correct(outputs, bits, "bits") == 0.75
    assert losses.position_correct(outputs, jnp.asarray(0), "classes") == 1
    np.testing.assert_allclose(losses.position_correct(outputs, bits, "real"), -(1 + 1 + 16 + 0.25) / 4)
