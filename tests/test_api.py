"""A trained run on plain arrays answers what its evaluator counted, and refuses what it cannot take."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from conftest import shared

import metalearn
from metalearn import api, train
from metalearn.measure import frozen
from metalearn.rl import acting
from metalearn.runtime import config as config_lib, experiment as experiment_lib
from metalearn.validate import ConfigError


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with pytest.MonkeyPatch.context() as monkeypatch:
        shared(monkeypatch)
        yield


def trained(tmp_path_factory, spec, overrides=()):
    workdir = str(tmp_path_factory.mktemp("api") / "run")
    numbers = train.run(config_lib.load(spec, overrides), workdir, quiet=True)
    return api.load(workdir), numbers


@pytest.fixture(scope="module")
def protonet(tmp_path_factory):
    return trained(tmp_path_factory, "configs/fewshot.py:smoke,protonet", ["learner.backbone.depth=1"])


@pytest.fixture(scope="module")
def incontext(tmp_path_factory):
    return trained(tmp_path_factory, "configs/gpicl.py:smoke")


def one_episode(learner, split):
    task = learner.experiment.task
    batch = jax.device_get(next(iter(frozen.Frozen(task, split, 1, 1, 3))))
    return batch.x_BTX[0], batch.y_BT[0], batch


def test_support_and_query_are_the_episode(protonet):
    learner, _ = protonet
    x, y, batch = one_episode(learner, "test")
    S = batch.support
    together = np.asarray(jax.jit(learner.experiment.learner.predict)(learner.params, learner.carry, batch))[0, S:]
    np.testing.assert_allclose(learner.predict(x[:S], y[:S], x[S:]), together, rtol=1e-5, atol=1e-5)


def test_any_number_of_shots_queries_and_classes(protonet):
    learner, _ = protonet
    x, y, batch = one_episode(learner, "test")
    S, order = batch.support, np.argsort(y[batch.support:], kind="stable")
    twice = np.concatenate([x[:S], x[:S]]), np.concatenate([y[:S], y[:S]])
    once = learner.predict(x[:S], y[:S], x[S:])
    np.testing.assert_allclose(learner.predict(*twice, x[S:][order]), once[order], rtol=1e-3, atol=1e-3)
    two = y[:S] < 2
    assert learner.predict(x[:S][two], y[:S][two], x[S:S + 1]).shape == (1, 2)


def test_in_context_a_query_after_the_support_is_the_last_position(incontext):
    learner, _ = incontext
    x, y, batch = one_episode(learner, "unseen")
    whole = np.asarray(jax.jit(learner.experiment.learner.predict)(learner.params, learner.carry, batch))[0]
    found = learner.predict(x[:-1], y[:-1], x[-1:])
    np.testing.assert_allclose(found[0], whole[-1], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused(protonet, incontext, tmp_path):
    learner, _ = protonet
    x, y, batch = one_episode(learner, "test")
    S = batch.support
    for arguments, words in [((x[:S], y[:S - 1], x[S:]), "y_support"), ((x[:S], y[:S], x[:0]), "x_query"),
                             ((x[:S], y[:S] + 1, x[S:]), "labels 0..V-1"), ((x[:S], y[:S] * 0.5, x[S:]), "integers"),
                             ((x[:S], y[:S], x[S:, :3]), "must have shape")]:
        with pytest.raises(ConfigError, match=words):
            learner.predict(*arguments)
    classes = np.arange(7, dtype=np.int32)
    with pytest.raises(ConfigError, match="knows 5 classes"):
        incontext[0].predict(np.zeros((7, 8)), classes, np.zeros((1, 8)))
    with pytest.raises(ConfigError, match="workdir"):
        metalearn.load(str(tmp_path))


def test_pixels_are_normalised_as_the_task_did(protonet):
    learner, _ = protonet
    assert learner.normalise(np.full((1, 2, 2, 1), learner.task.inputs.mean)) == pytest.approx(0.0, abs=1e-6)
    images = np.random.default_rng(0).random((2, 3, 8, 8, 1))
    several, one = learner.normalise(images), learner.normalise(images[1])
    np.testing.assert_array_equal(several[1], one)
    assert several.shape == images.shape
    for wrong in (images[0, 0, 0, :, 0], images[..., :1, :1, :]):
        with pytest.raises(ConfigError, match="images=.*must be"):
            learner.normalise(wrong)


SMALL = ("evaluators.few.methods=('zero',)", "task.history=2", "task.window=4", "learner.prompt=3", "task.episodes=4",
         "task.train_tasks=3", "task.env.length=8", "task.prompt_span=8", "learner.num_heads=2")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A Meta-DT with a head so large that its actions differ, and the numbers of its evaluators with it."""
    learner, _ = trained(tmp_path_factory, "configs/metadt.py:smoke", SMALL)
    params = jax.tree.map(np.copy, learner.params)
    params["policy"]["head"]["kernel"] = np.random.default_rng(0).normal(
        size=params["policy"]["head"]["kernel"].shape).astype(np.float32)
    return dataclasses.replace(learner, params=params)


def played(policy, goal_X, prompt=None, target=None):
    """(observations, actions, rewards) of one episode in a plain loop, the last observation too."""
    env = policy.experiment.task.spec.env
    state, obs = env.reset(None, goal_X)
    observations, actions, rewards = [obs], [], []
    for _ in range(env.length):
        act = policy.act(observations, actions, rewards, prompt, target)
        state, obs, rew, _ = env.step(None, state, act, goal_X)
        observations, actions, rewards = [*observations, obs], [*actions, act], [*rewards, rew]
    return np.asarray(observations), np.asarray(actions), np.asarray(rewards)


def test_acting_in_ones_own_loop_is_the_evaluators_episode(policy):
    """Longer than the window, zero-shot: the target is by default the evaluator's, the mean of the tasks' best."""
    found = policy.experiment.evaluators["few"].run(policy.params, policy.carry)["facts"]["returns"]["zero"]
    goals = policy.experiment.task.data["test"]["param_BX"]
    episodes = [played(policy, goal) for goal in goals]
    np.testing.assert_allclose([rew.sum() for *_, rew in episodes], found, rtol=1e-4)
    actions = np.stack([act for _, act, _ in episodes])
    assert np.abs(np.diff(actions, axis=0)).max() > 0.1, "every task looks the same to it"


def test_acting_after_an_earlier_episode_is_the_evaluators_episode(policy):
    """The evaluator's demonstration: prompted by the best logged episode, aiming at its return."""
    found = policy.experiment.evaluators["demo"].run(policy.params, policy.carry)["facts"]["returns"]["demo"]
    part = policy.experiment.task.data["test"]
    for task, goal in enumerate(part["param_BX"]):
        logs = part["logs"]
        best = logs.rtg_BT[task, :, 0].argmax()
        obs, last = logs.obs_BTS[task, best], logs.next_BTS[task, best, -1:]
        prompt = np.concatenate([obs, last]), logs.act_BTA[task, best], logs.rew_BT[task, best]
        target, spec = logs.rtg_BT[task, best, 0], policy.experiment.task.spec
        whole = acting.as_prompt(spec, jax.tree.map(lambda a, at=(task, best): a[at][None], logs))
        jax.tree.map(np.testing.assert_allclose, api._prompt(spec, *prompt), whole)
        assert played(policy, goal, prompt, target)[2].sum() == pytest.approx(found[task], rel=1e-4)
        first = np.zeros((1, 2)), np.zeros((0, 2)), np.zeros(0)
        assert np.abs(policy.act(*first, prompt, target) - policy.act(*first, None, target)).max() > 1e-3


def test_what_an_agent_cannot_have_seen_is_refused(policy, protonet):
    obs, act, rew = np.zeros((3, 2)), np.zeros((2, 2)), np.zeros(2)
    long = np.zeros((9, 2)), np.zeros((8, 2)), np.zeros(8)
    for arguments, words in [((obs[:2], act, rew), "observations"), ((obs, act[:1], rew), "actions"),
                             ((obs, act + 2, rew), "between -1 and 1"), ((obs * np.nan, act, rew), "finite"),
                             (long, "observations=9: must be at most 8"),
                             ((obs, act, rew, (obs, act, rew[:1])), "prompt observations")]:
        with pytest.raises(ConfigError, match=words):
            policy.act(*arguments)
    with pytest.raises(ConfigError, match="nothing to act in"):
        protonet[0].act(obs, act, rew)


def test_a_policy_that_is_told_the_task_cannot_act_alone(policy):
    config = policy.experiment.config.copy_and_resolve_references()
    config.unlock()
    config.learner.update(context="task", prompt_select="none")
    oracle = experiment_lib.build(config, policy.experiment.task)
    batch = policy.sample("train", 1)
    params, carry = jax.jit(oracle.learner.init)(jax.random.key(0), batch)
    with pytest.raises(ConfigError, match="hidden parameters"):
        told = dataclasses.replace(policy, learner=oracle.learner, params=params, carry=carry)
        told.act(np.zeros((1, 2)), [], [])


def test_reading_and_writing_inside(incontext):
    learner, _ = incontext
    batch = learner.sample("unseen", 3, seed=1)
    outputs, inside = learner.read(batch)
    np.testing.assert_allclose(outputs, learner.outputs(batch), rtol=1e-5, atol=1e-6)
    D = learner.experiment.config.learner.network.width
    assert inside["blocks_0"].shape == (3, batch.y_BT.shape[1], D)
    silent = learner.write(batch, {"blocks_0": lambda value, position: 0 * value})
    bias = learner.params["norm"]["bias"] @ learner.params["head"]["kernel"] + learner.params["head"]["bias"]
    np.testing.assert_allclose(silent, np.broadcast_to(bias, silent.shape), atol=1e-6)  # nothing is left but biases
    with pytest.raises(ConfigError, match="split"):
        learner.sample("unsen", 3)


def test_reading_what_a_few_shot_learner_embeds(protonet):
    """Its support, then its queries; the distances to the class means of what was read are the logits."""
    learner, _ = protonet
    batch = learner.sample("test", 2, seed=1)
    outputs, support = learner.read(batch)
    _, queries = learner.read(batch, of=1)
    last = f"blocks_{learner.experiment.config.learner.backbone.depth - 1}"
    h_BSD, h_BQD = (np.asarray(inside[last]).reshape(*y.shape, -1) for inside, y in (
        (support, batch.y_BT[:, :batch.support]), (queries, batch.y_BT[:, batch.support:])))
    y_BSV = np.eye(batch.ways)[batch.y_BT[:, :batch.support]]
    mean_BVD = np.einsum("bsv,bsd->bvd", y_BSV, h_BSD) / y_BSV.sum(1)[..., None]
    far_BQV = ((h_BQD[:, :, None] - mean_BVD[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(outputs[:, batch.support:], -far_BQV, rtol=1e-3, atol=1e-3)
    same = learner.write(batch, {last: lambda value, position: 0 * value})[:, batch.support:]
    np.testing.assert_allclose(same, 0, atol=1e-6)  # all embeddings alike, no class is nearer than another


def test_reading_what_a_policy_acts_by(policy):
    """Its transformer is the last network applied: head of the norm of the state tokens are its actions."""
    batch = policy.sample("test", 2, seed=1)
    outputs, inside = policy.read(batch, of=-1)
    np.testing.assert_allclose(outputs["act_BTA"], np.tanh(inside["head"]), rtol=1e-5, atol=1e-6)
    _, world = policy.read(batch)
    np.testing.assert_allclose(outputs["code_BTC"], world["encoder"], rtol=1e-5, atol=1e-6)
    rest = policy.write(batch, {"block_0": lambda value, position: 0 * value})["act_BTA"]
    np.testing.assert_allclose(rest, np.broadcast_to(rest[0, 0], rest.shape), atol=1e-6)  # nothing is left to act by


def test_one_call_trains_and_one_evaluates(tmp_path, incontext):
    """The very numbers of the programs; a config by its name takes overrides as the command line does."""
    workdir, few = str(tmp_path / "run"), ["train.steps=2", "evaluators.curves.sets=('unseen',)"]
    numbers = metalearn.train("configs/gpicl.py:smoke", workdir, few)
    again = metalearn.evaluate(workdir)
    assert again["curves"] == numbers["curves"] and again["step"] == 2
    assert metalearn.train(config_lib.load("configs/gpicl.py:smoke", few), workdir)["curves"] == numbers["curves"]
    assert metalearn.evaluate(workdir, ["evaluators.curves.seed=2"])["curves"] != numbers["curves"]
    assert (tmp_path / "run" / "eval" / "curves@evaluators.curves.seed=2.json").exists()
    with pytest.raises(ConfigError, match="overrides"):
        metalearn.train(config_lib.load("configs/gpicl.py:smoke"), workdir, few)
