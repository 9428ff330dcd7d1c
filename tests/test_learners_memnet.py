"""The online learner: its rules, its pace through episodes, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError

FEEDBACK = dict(context="none", clock=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False,
                trace=0.0, aux=0.0, adapter="none")
SPEEDS = dict(scope="persistent", fast=1.0, slow=1.0, mix=0.5, leak=1.0, match="")
NSE = dict(name="nse", slots=4, width=3, hidden=4, controller="lstm", similarity="dot", memory="constant")
BASE = dict(network=NSE, members=(), inputs="x", rule="synthetic", window=3, feedback=FEEDBACK, speeds=SPEEDS,
            curriculum=dict(start=0, bits=0.15), replicas=1, unroll=1, remat=False)


def build(task_changes=None, **changes):
    kw = dict(symbols=4, length=7, rare_frac=0.3, task_seed=0) | (task_changes or {})
    task = lookup.build("tasks", "gated_recall", **kw)
    return task, lookup.build("learners", "memnet", task.facts, **BASE | changes)


def draw(task, seed=0, num=4, split="train"):
    return task.sample(task.data, jax.random.key(seed), split, num)


@pytest.fixture(scope="module")
def silent():
    """First gradients on one batch of a fresh synthetic learner and of truncated BPTT."""
    out = {}
    for rule in ("synthetic", "tbptt"):
        task, learner = build(rule=rule)
        batch = draw(task)
        params, carry = learner.init(jax.random.key(1), batch)
        grads, seen = jax.jit(learner.grads), []
        for _ in range(4):
            g, carry, means = grads(params, carry, batch, jax.random.key(0))
            seen.append((g, carry, means))
        out[rule] = params, seen
    return out


def test_a_fresh_feedback_model_leaves_truncated_backpropagation_as_it_is(silent, golden):
    golden("memnet", silent["synthetic"][1][1][0])
    for (a, *_), (b, *_) in zip(silent["synthetic"][1], silent["tbptt"][1], strict=True):
        for x, y in zip(jax.tree.leaves(a["net"]), jax.tree.leaves(b["net"]), strict=True):
            np.testing.assert_array_equal(x, y)


def test_one_update_per_window_then_the_next_batch(silent):
    carries = [carry for _, carry, _ in silent["tbptt"][1]]
    assert [int(c["segment"]) for c in carries] == [1, 2, 0, 1]  # 7 positions, window 3: the last one is padded
    assert [int(c["batch"]) for c in carries] == [0, 0, 1, 1]
    losses = [float(means["loss"].count) for _, _, means in silent["tbptt"][1]]
    assert losses == [0, 0, 4, 0]


def test_windows_sum_to_the_episode_when_the_window_is_the_episode():
    task, online = build(rule="tbptt", window=7)
    _, whole = build(rule="bptt", window=7)
    batch = draw(task)
    params, carry = online.init(jax.random.key(1), batch)
    a = online.grads(params, carry, batch, jax.random.key(0))[0]
    b = whole.grads(params, whole.init(jax.random.key(1), batch)[1], batch, jax.random.key(0))[0]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_recomputing_windows_changes_memory_not_numbers():
    task, plain = build(rule="bptt")
    _, remat = build(rule="bptt", remat=True)
    batch = draw(task)
    params, carry = plain.init(jax.random.key(1), batch)
    a, b = (jax.tree.leaves(jax.jit(o.grads)(params, carry, batch, None)[0]) for o in (plain, remat))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)


def test_a_new_batch_starts_fresh_wherever_the_old_one_stopped():
    task, learner = build(rule="tbptt")
    first, second = draw(task, 0), draw(task, 1)
    params, carry = learner.init(jax.random.key(1), first)
    _, middle, _ = learner.grads(params, carry, first, None)
    _, after, _ = learner.grads(params, middle, second, None)
    _, clean, _ = learner.grads(params, carry, second, None)
    for x, y in zip(jax.tree.leaves(after["inner"]), jax.tree.leaves(clean["inner"]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_stream_is_predict_and_duplicating_the_batch_changes_nothing():
    task, learner = build(rule="tbptt", inputs="x_and_last_label", window=7)
    batch = draw(task)
    params, carry = learner.init(jax.random.key(1), batch)
    whole_BTV, state = learner.predict(params, carry, batch), learner.stream.init(params, 4, 7)
    for t in range(7):
        before = batch.y_BT[:, t - 1] if t else jnp.full(4, -1)
        state, logits_BV = learner.stream.step(params, state, batch.x_BTX[:, t], before)
        np.testing.assert_allclose(logits_BV, whole_BTV[:, t], rtol=1e-4, atol=1e-6)
    double = jax.tree.map(lambda a: jnp.concatenate([a, a]), batch)
    a = learner.grads(params, carry, batch, None)[0]
    b = learner.grads(params, learner.init(jax.random.key(1), double)[1], double, None)[0]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_replicas_are_separate_runs():
    task, learner = build(replicas=2)
    batch = draw(task, num=8)
    params, carry = learner.init(jax.random.key(1), batch)
    g, *_ = learner.grads(params, carry, batch, None)
    _, alone = build()
    mine = lambda tree: jax.tree.map(lambda a: a[1], tree)
    half = jax.tree.map(lambda a: a[4:], batch)
    lone = {**jax.tree.map(lambda a: a, carry), "inner": mine(carry["inner"])}
    h, *_ = alone.grads(mine(params), lone, half, None)
    for x, y in zip(jax.tree.leaves(mine(g)), jax.tree.leaves(h), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert learner.predict(params, carry, half).shape == (2, 4, 7, 4)


@pytest.mark.parametrize("field,changes", [
    ("window", dict(window=8)), ("window", dict(window=0)), ("rule", dict(rule="dni")),
    ("feedback.context", dict(feedback=FEEDBACK | dict(context="labels"))),
    ("feedback.gamma", dict(feedback=FEEDBACK | dict(gamma=1.5))),
    ("network.slots", dict(network=NSE | dict(slots=0))), ("network.width", dict(network=NSE | dict(width=0))),
    ("curriculum.start", dict(curriculum=dict(start=2, bits=0.1))),
])
def test_bad_input_is_one_clear_line(field, changes):
    with pytest.raises(ConfigError, match=field):
        build(**changes)


def test_label_context_needs_labels():
    facts = dict(length=5, features=2, outputs=1, targets="real")
    with pytest.raises(ConfigError, match="labels"):
        lookup.build("learners", "memnet", facts, **BASE | dict(feedback=FEEDBACK | dict(context="label")))
