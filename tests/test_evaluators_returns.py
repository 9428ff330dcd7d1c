"""Returns: the right memory reaches the policy, budgets are kept, and few-shot never sees a test task's data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.types import Learner
from metalearn.validate import ConfigError

TASK = dict(env=dict(name="point_robot", length=10, goal_range=1.0), data="", cache="", behaviour="history",
            quality="mixed", sac={}, train_tasks=4, test_tasks=3, episodes=6, task_seed=0,
            data_seed=0, history=2, window=4, start_frac=0.5, prompt_span=10,
            prompt_top=0, conditioning="return", scale=10.0)
FIELDS = dict(methods=("zero", "few_none", "few_random", "few_sample", "demo"), rounds=3, after=(1,), explore_steps=2,
              noise=0.3, target="fixed", target_value=-1.0, repeats=2, seed=0)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lookup.build("tasks", "offline", **TASK).collect(str(tmp_path_factory.mktemp("data")))


def learner_of(rule) -> Learner:
    """A learner without parameters: rule(batch) -> act_BTA of the window."""
    def predict(params, carry, batch):
        act_BTA = rule(batch)
        return {"act_BTA": act_BTA, "std_BTA": jnp.ones_like(act_BTA)}
    return Learner(None, None, predict, lambda length: 0)


def now(batch):
    return jax.tree.map(lambda a: a[:, 2:], batch.body)


def conditioning(batch):
    return batch.conditioning_BT[:, 2:]


def run(task, rule, **changes):
    return lookup.build("evaluators", "returns", task, learner_of(rule), **(FIELDS | changes)).run((), ())


def knows_the_goal(batch):
    return jnp.clip((batch.param_BX[:, None] - now(batch).obs_BTS) / 0.1, -1, 1)


def follows_the_prompt(batch):
    """Repeats the prompt's first action; zero without a prompt."""
    return jnp.broadcast_to(batch.prompt.act_BTA[:, 2:3], now(batch).act_BTA.shape)


def test_a_policy_that_knows_the_goal_is_the_oracle_line(task):
    """Past the window's four steps too: each step's observation is where the policy reads it."""
    found = run(task, knows_the_goal, methods=("zero",))["headline"]
    np.testing.assert_allclose(found["zero"], found["oracle"], rtol=1e-5)
    assert found["oracle"] > found["behaviour"] > found["zero_action"]


def test_memory_holds_the_episode_so_far(task):
    """A policy that acts by what the record says of the last step: checked against the same episode by hand."""
    def rule(batch):
        steps = now(batch)
        last = lambda a: jnp.pad(a[:, :-1], ((0, 0), (1, 0)) + ((0, 0),) * (a.ndim - 2))
        seen_BT = last(steps.rew_BT) + conditioning(batch) - 0.1 * steps.time_BT + last(steps.next_BTS)[..., 0]
        return jnp.stack([jnp.sin(seen_BT), jnp.cos(seen_BT) * last(steps.mask_BT)], -1)

    result = run(task, rule, methods=("zero",), repeats=1)
    for goal, got in zip(np.asarray(task.data["test"]["param_BX"]), result["facts"]["returns"]["zero"], strict=True):
        s, rew, target, total = np.zeros(2), 0.0, -1.0, 0.0
        for t in range(10):
            inside = t % 10 > 0
            seen = rew + target - 0.1 * t + (s[0] if inside else 0.0)
            act = np.clip([np.sin(seen), np.cos(seen) * inside], -1, 1)
            s = s + 0.1 * act
            rew = -np.linalg.norm(s - goal)
            target, total = target - rew, total + rew
        np.testing.assert_allclose(got, total, rtol=1e-4)


def test_few_shot_reads_nothing_of_the_test_tasks_data(task):
    """Other logs for the test tasks: every number but the demonstration's and the behaviour's stays, to the bit."""
    part = task.data["test"]
    logs = jax.tree.map(lambda a: (np.asarray(a) * 0.5 + 0.25).astype(a.dtype), part["logs"])
    other = dataclasses.replace(task, data=task.data | {"test": part | {"logs": logs}})
    mixed = lambda batch: jnp.tanh(follows_the_prompt(batch) + conditioning(batch)[..., None])
    a, b = (run(t, mixed, methods=FIELDS["methods"][:4])["facts"]["returns"] for t in (task, other))
    assert len(a) == 7 and all(np.array_equal(a[k], b[k]) for k in a)
    demo = [run(t, follows_the_prompt, methods=("demo",))["facts"]["returns"]["demo"] for t in (task, other)]
    assert np.abs(demo[0] - demo[1]).max() > 1e-3


def test_adaptation_explores_as_it_says_and_keeps_the_best(task):
    result = run(task, follows_the_prompt)
    returns, curves = result["facts"]["returns"], {s["name"]: s["y"] for s in result["curves"][0]["series"]}
    idle = result["headline"]["zero_action"]
    np.testing.assert_allclose(curves["few_none"], [idle] * 3, rtol=1e-5)  # nothing known, nothing tried
    assert abs(curves["few_random"][0] - idle) > 1e-3
    assert set(returns) >= {"few_random_1", "few_random"} and len(curves["few_random"]) == 3
    assert result["headline"]["adaptation_steps"] == 30


def test_with_ranks_the_first_place_is_the_target(task):
    ranked = dataclasses.replace(task, spec=dataclasses.replace(task.spec, conditioning="rank"))
    rule = lambda batch: jnp.broadcast_to(conditioning(batch)[..., None] - 0.5, now(batch).act_BTA.shape)
    found = run(ranked, rule, methods=("zero",), repeats=1)["facts"]["returns"]["zero"]
    for goal, got in zip(np.asarray(task.data["test"]["param_BX"]), found, strict=True):
        path = 0.05 * np.arange(1, 11)[:, None] * np.ones(2)  # 1 - 0.5, halved by the stride, at every step
        np.testing.assert_allclose(got, -np.linalg.norm(path - goal, axis=1).sum(), rtol=1e-4)


def test_an_episode_does_not_depend_on_what_else_is_run(tmp_path):
    """The one after a round is the same whether more rounds follow, and whatever the other test tasks are; where an
    episode begins is random here, and so are the actions."""
    fields = TASK | dict(env=dict(name="velocity", length=10))
    task = lookup.build("tasks", "offline", **fields).collect(str(tmp_path))
    fewer = dataclasses.replace(task, data=task.data | {"test": jax.tree.map(lambda a: a[1:], task.data["test"])})
    returns = lambda task, **changes: run(task, follows_the_prompt, methods=("few_sample",), after=(1,),
                                          **changes)["facts"]["returns"]
    three, one, some = returns(task), returns(task, rounds=1), returns(fewer)
    np.testing.assert_allclose(one["few_sample"], three["few_sample_1"], rtol=1e-5)
    for name in ("few_sample_1", "few_sample"):
        np.testing.assert_allclose(some[name], three[name][1:], rtol=1e-5)


def test_refusals(task):
    for changes, text in ((dict(target="task_max"), "target=task_max: is knowledge of the test task"),
                          (dict(methods=("few",)), "methods=few"), (dict(after=(4,)), "after=4"),
                          (dict(methods=()), "at least one"), (dict(rounds=0), "rounds=0")):
        with pytest.raises(ConfigError, match=text):
            run(task, knows_the_goal, **changes)


def test_success_is_what_a_simulator_says(task):
    """Of episodes outside JAX: a task whose simulator never says so has none, whatever was earned; nothing said, no
    rate."""
    goal_BX = np.asarray(task.data["test"]["param_BX"])

    def host(param_BX, seed_B):
        place = np.zeros((len(param_BX), 2), np.float32)

        def advance(act_BA):
            place[:] += 0.1 * np.clip(act_BA, -1, 1)
            far_B = np.linalg.norm(place - param_BX, axis=1)
            return place.copy(), -far_B, np.zeros(len(place), bool), (far_B < 0.05) & (param_BX[:, 0] != goal_BX[0, 0])
        return place.copy(), advance

    def successes(**facts):
        env = task.spec.env
        env = dataclasses.replace(env, reset=None, step=None, host=host, facts=env.facts | facts,
                                  expert=lambda obs_BS, time, param_BX: np.clip((param_BX - obs_BS) / 0.1, -1, 1))
        new = dataclasses.replace(task, spec=dataclasses.replace(task.spec, env=env))
        return run(new, knows_the_goal, methods=("zero",), repeats=1)

    result = successes(success=True)
    reached_B = np.abs(goal_BX).max(1) < 1.0
    np.testing.assert_array_equal(result["facts"]["successes"]["zero"], reached_B & (np.arange(len(goal_BX)) > 0))
    np.testing.assert_allclose(result["headline"]["zero_success"], result["facts"]["successes"]["zero"].mean())
    assert "zero_success" not in successes()["headline"]
