"""The outer optimiser: every rule by hand, the guard against non-finite updates, freezing, groups."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalearn.runtime import optimiser
from metalearn.validate import ConfigError

FIELDS = dict(name="adam", lr=0.1, warmup_steps=0, decay="constant", clip=0.0, weight_decay=0.0, b1=0.9, b2=0.99,
              eps=1e-8, freeze="", total_steps=10)
PARAMS = {"encoder": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}, "head": jnp.array([[3.0]])}
GRADS = {"encoder": {"kernel": jnp.array([[0.3, -0.4]]), "bias": jnp.array([2.0])}, "head": jnp.array([[-1.0]])}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def step(tx, state=None, grads=GRADS, params=PARAMS):
    updates, state = tx.update(grads, tx.init(params) if state is None else state, params)
    return updates, state


@pytest.mark.parametrize("name", optimiser.RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_gradient_moves_nothing_and_is_counted(name, bad):
    tx = optimiser.make(**FIELDS | dict(name=name, clip=1.0, weight_decay=0.1))
    _, state = step(tx)
    broken = GRADS | {"head": jnp.array([[bad]])}
    updates, after = step(tx, state, broken)
    assert same(updates, jax.tree.map(jnp.zeros_like, PARAMS))
    assert same(after.inner, state.inner) and (after.skipped, after.streak) == (1, 1)
    _, after = step(tx, after, broken)
    assert (after.skipped, after.streak) == (2, 2)
    updates, after = step(tx, after)
    assert (after.skipped, after.streak) == (2, 0) and not same(updates, jax.tree.map(jnp.zeros_like, PARAMS))
    assert not same(after.inner, state.inner)


def test_an_update_that_overflows_is_refused_too():
    tx = optimiser.make(**FIELDS | dict(name="sgd", lr=1e30))
    updates, state = step(tx, grads=jax.tree.map(lambda g: g * 1e15, GRADS))
    assert state.skipped == 1 and same(updates, jax.tree.map(jnp.zeros_like, PARAMS))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_sign_momentum_moves_by_exactly_lr(scale):
    tx = optimiser.make(**FIELDS | dict(name="sign_momentum"))
    state, average = tx.init(PARAMS), 0.0
    for factor in (1.0, -0.01, -30.0):  # the sign is that of the average, not of the last gradient
        updates, state = step(tx, state, jax.tree.map(lambda g, f=factor: g * f * scale, GRADS))
        average = 0.9 * average + 0.1 * factor
        for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(GRADS), strict=True):
            np.testing.assert_array_equal(u, -np.float32(0.1) * np.sign(average) * np.sign(g))


def test_adam_by_hand():
    tx = optimiser.make(**FIELDS | dict(eps=1e-3))
    state, m, v, g = tx.init(PARAMS), 0.0, 0.0, -1.0
    for t in (1, 2):
        updates, state = step(tx, state, jax.tree.map(lambda x, t=t: x * t, GRADS))
        m, v = 0.9 * m + 0.1 * g * t, 0.99 * v + 0.01 * (g * t) ** 2
        want = -0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
        np.testing.assert_allclose(updates["head"], [[want]], rtol=1e-4)


def test_sgd_has_momentum():
    tx = optimiser.make(**FIELDS | dict(name="sgd"))
    _, state = step(tx)
    updates, _ = step(tx, state)
    np.testing.assert_allclose(updates["head"], [[0.1 * 1.9]], rtol=1e-6)


def test_clip_is_of_the_global_norm():
    norm = float(optax.global_norm(GRADS))
    for clip, factor in ((norm / 4, 0.25), (norm * 4, 1.0), (0.0, 1.0)):
        updates, _ = step(optimiser.make(**FIELDS | dict(name="sgd", clip=clip)))
        np.testing.assert_allclose(updates["encoder"]["kernel"], -0.1 * factor * GRADS["encoder"]["kernel"], rtol=1e-5)


def test_weight_decay_touches_matrices_only_and_follows_the_learning_rate():
    plain, _ = step(optimiser.make(**FIELDS | dict(name="sgd")))
    decayed, _ = step(optimiser.make(**FIELDS | dict(name="sgd", weight_decay=0.2)))
    np.testing.assert_array_equal(plain["encoder"]["bias"], decayed["encoder"]["bias"])
    for leaf in ("encoder", "head"):
        less = jax.tree.leaves(decayed[leaf])[-1] - jax.tree.leaves(plain[leaf])[-1]
        np.testing.assert_allclose(less, -0.1 * 0.2 * jax.tree.leaves(PARAMS[leaf])[-1], rtol=1e-4)


def test_warm_up_and_decay():
    schedule = optimiser.schedule(0.1, 4, "constant", 10)
    np.testing.assert_allclose([schedule(t) for t in range(6)], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-6)
    schedule = optimiser.schedule(0.1, 2, "cosine", 10)
    assert schedule(1) == schedule(2) == np.float32(0.1) and schedule(10) < 1e-8
    np.testing.assert_allclose(schedule(6), 0.05, rtol=1e-5)
    schedule = optimiser.schedule(0.1, 1, "constant", 10)
    assert schedule(0) == schedule(5) == np.float32(0.1)


def test_the_schedule_is_what_is_applied():
    tx = optimiser.make(**FIELDS | dict(name="sign_momentum", warmup_steps=3))
    schedule = optimiser.schedule(0.1, 3, "constant", 10)
    state = tx.init(PARAMS)
    for t in range(4):
        updates, state = step(tx, state)
        np.testing.assert_allclose(updates["head"], [[schedule(t)]], rtol=1e-6)


def test_frozen_leaves_stay_bit_identical():
    tx = optimiser.make(**FIELDS | dict(freeze="^encoder/", weight_decay=0.5))
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    assert same(params["encoder"], PARAMS["encoder"]) and not same(params["head"], PARAMS["head"])


def test_groups_have_a_rate_and_a_norm_of_their_own():
    groups = {"head": {"match": "^head", "lr": 0.01, "clip": 0.5}}
    tx = optimiser.make(**FIELDS | dict(name="sgd", clip=1.0, groups=groups))
    updates, _ = step(tx)
    np.testing.assert_allclose(updates["head"], [[0.01 * 0.5]], rtol=1e-5)
    rest = float(optax.global_norm(GRADS["encoder"]))
    np.testing.assert_allclose(updates["encoder"]["bias"], [-0.1 * 2.0 / rest], rtol=1e-5)


def test_label_takes_the_first_pattern():
    labels = optimiser.label(PARAMS, freeze="bias$", other="^encoder")
    assert labels == {"encoder": {"kernel": "other", "bias": "freeze"}, "head": "train"}


@pytest.mark.parametrize("change, field", [
    (dict(name="adamw"), "name"), (dict(decay="linear"), "decay"), (dict(lr=0.0), "lr"), (dict(b1=1.0), "b1"),
    (dict(b2=-0.1), "b2"), (dict(clip=-1.0), "clip"), (dict(warmup_steps=11), "warmup_steps"),
    (dict(eps=-1.0), "eps"),
    (dict(weight_decay=-1.0), "weight_decay"), (dict(freeze="["), "freeze"),
    (dict(groups={"g": {}}), "groups.g.(fields)"),
    (dict(groups={"g": dict(match="(", lr=0.1, clip=1.0)}), "groups.g.match"),
    (dict(groups={"g": dict(match="", lr=-0.1, clip=1.0)}), "groups.g.lr"),
])
def test_refusals(change, field):
    with pytest.raises(ConfigError) as error:
        optimiser.make(**FIELDS | change)
    assert error.value.field == field
