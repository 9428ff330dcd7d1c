"""Meta-DT: causality by gradient, prompts, the frozen world model, and every member of the family learns something."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup, train
from metalearn.learners import metadt
from metalearn.rl import acting
from metalearn.runtime import config
from metalearn.types import Prompted
from metalearn.validate import ConfigError

TASK = dict(env=dict(name="velocity", length=10), data="", cache="", behaviour="history", quality="mixed", sac={},
            train_tasks=4, test_tasks=2,
            episodes=6, task_seed=0, data_seed=0, history=2, window=5, start_frac=0.5, prompt_span=7, prompt_top=0,
            conditioning="return", scale=10.0)
FIELDS = dict(context="world", prompt=3, prompt_select="error", prompt_frac=1.0, warm_steps=0, conditioning="return",
              head="mse", action_dropout=0.5, context_dropout=0.1, world_training="frozen",
              world=dict(decoders="both", embed=4, hidden=8, code=4), depth=1, width=8, num_heads=1, mlp=16,
              activation="relu", dropout=0.1, prompt_norm=True, remat="none")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lookup.build("tasks", "offline", **TASK).collect(str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def batch(task):
    return jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(0), "train", 6)


def build(task, **changes):
    return lookup.build("learners", "metadt", task.spec, **(FIELDS | changes))


def lively(params):
    """Initial parameters with a head large enough to see through."""
    params["policy"]["head"]["kernel"] = jax.random.normal(jax.random.key(5), params["policy"]["head"]["kernel"].shape)
    return params


@pytest.fixture(scope="module")
def made(task, batch):
    learner = build(task)
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    return learner, lively(params), carry


def test_actions_depend_on_the_past_alone(made, batch):
    """d act_t / d x_s: none from the step's own action and reward on, some from everything before."""
    learner, params, carry = made
    h, t, row = 2, 2, int(jnp.argmax(batch.body.mask_BT.sum(1)))  # a ReLU at zero would hide a padded step

    def act(body):
        return learner.predict(params, carry, batch.replace(body=body))["act_BTA"][row, t].sum()

    full = batch.body
    assert full.mask_BT[row].all()
    floats = {k: getattr(full, k) for k in ("obs_BTS", "act_BTA", "rew_BT", "next_BTS", "rtg_BT")}
    slope = jax.jit(jax.grad(lambda f: act(full.replace(**f))))(floats)
    size = {k: np.abs(np.asarray(v[row])).reshape(v.shape[1], -1).sum(1) for k, v in slope.items()}
    assert (size["obs_BTS"][h + t + 1:] == 0).all() and (size["rtg_BT"][h + t + 1:] == 0).all()
    assert (size["act_BTA"][h + t:] == 0).all() and (size["rew_BT"][h + t:] == 0).all()
    assert (size["next_BTS"] == 0).all()
    assert size["obs_BTS"][h + t] > 0 and size["act_BTA"][h + t - 1] > 0 and size["rew_BT"][h + t - 1] > 0
    assert size["obs_BTS"][h + 1:h + t].all() and size["obs_BTS"][0] > 0  # the latter through the first step's code


def test_a_row_without_prompt_is_what_it_would_be_without_others(made, batch):
    """Blanked prompts change nothing whatever they hold; present ones matter."""
    learner, params, carry = made
    off = jax.tree.map(lambda a: jnp.zeros_like(a), batch.prompt)
    junk = off.replace(obs_BTS=jnp.ones_like(off.obs_BTS), rtg_BT=jnp.ones_like(off.rtg_BT))
    predict = jax.jit(learner.predict)
    a, b, c = (predict(params, carry, batch.replace(prompt=p))["act_BTA"] for p in (off, junk, batch.prompt))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(np.asarray(a - c)).max() > 1e-3


def test_padding_on_the_right_is_invisible(made, batch):
    learner, params, carry = made
    body = batch.body
    cut = jnp.arange(body.rew_BT.shape[1]) < 5
    clean = jax.tree.map(lambda a: a * cut.reshape(1, -1, *[1] * (a.ndim - 2)).astype(a.dtype), body)
    junk = clean.replace(obs_BTS=jnp.where(cut[:, None], body.obs_BTS, 7.0), rtg_BT=jnp.where(cut, body.rtg_BT, 7.0))
    a, b = (jax.jit(learner.predict)(params, carry, batch.replace(body=x))["act_BTA"][:, :3] for x in (clean, junk))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_world_model_is_frozen_or_learns(task, batch, made):
    for learner, moves in ((made[0], False), (build(task, world_training="joint"), True)):
        grads, carry, means = jax.jit(learner.grads)(*made[1:], batch, jax.random.key(2))
        world = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads["world"]))
        assert (world > 0) == moves and ("reward_mse" in means) == moves
        assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads["policy"]["obs_code"]))
        assert int(carry["step"]) == 1
    assert made[0].pretrained["world"]["task.history"] == 2 and not learner.pretrained


def test_the_prompt_is_the_worst_predicted_stretch():
    steps = metadt.Trajectories(**{f: jnp.zeros((2, 8)) for f in (
        "obs_BTS", "act_BTA", "rew_BT", "next_BTS", "rtg_BT", "terminated_BT", "truncated_BT")},
        time_BT=jnp.tile(jnp.arange(8), (2, 1)), mask_BT=jnp.array([[1.0] * 8, [1.0] * 4 + [0.0] * 4]))
    score_BT = jnp.array([[9.0, 9, 0, 1, 2, 3, 1, 0], [9.0, 9, 0, 1, 2, 3, 1, 0]])
    start_B, on_B = metadt.segment(score_BT, steps, 3, history=2)
    # row 0: sums of three from step 2 on are 3, 6, 6, 4: the first of the largest; row 1 has two steps past step 2 only
    assert int(start_B[0]) == 3 and on_B.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("changes", [
    {}, dict(context="task", head="gaussian", prompt_select="none"),
    dict(conditioning="histogram", prompt_select="random", prompt_norm=False, depth=2)])
def test_a_cached_episode_is_acted_as_a_whole_one(task, changes):
    """Step by step with a cache, against the whole window read anew at every step; one row has a prompt, one none."""
    spec = dataclasses.replace(task.spec, window=task.spec.episode)
    learner = lookup.build("learners", "metadt", spec, **(FIELDS | changes))
    prompt = jax.tree.map(lambda a: np.concatenate([np.zeros_like(a[:1]), a[:1]]), acting.as_prompt(
        spec, jax.tree.map(lambda a: a[:, 0], task.data["test"]["logs"])))
    ids_B, param_BX = jnp.arange(2), jnp.asarray(task.data["test"]["param_BX"][:2])
    history = acting.begin(spec, np.asarray([5.0, -3.0]))
    none = Prompted(acting.no_prompt(spec, 2), *acting._record(spec, history, 0), ids_B, param_BX)
    params, carry = jax.jit(learner.init)(jax.random.key(1), none)
    params = lively(params)
    played = jax.random.normal(jax.random.key(2), (3, spec.episode, 2))

    @jax.jit
    def act(history, time):
        return acting.decide(spec, learner, params, carry, prompt, history, time, ids_B, param_BX)

    moving = dataclasses.replace(spec, window=spec.episode - 1)
    assert acting.cache(moving, learner, params, prompt, history, ids_B, param_BX).cached is None
    history, found = acting.cache(spec, learner, params, prompt, history, ids_B, param_BX), []
    assert history.cached is not None
    for time, (obs_B, act_B, rew_B) in enumerate(played.swapaxes(0, 1)):
        history = acting.observe(history, time, obs_B[:, None], rew_B if time else jnp.zeros(2))
        want_BA, want_std_BA, _ = act(history.replace(cached=None), time)
        act_BA, std_BA, history = act(history, time)
        np.testing.assert_allclose(act_BA, want_BA, atol=2e-6)
        np.testing.assert_allclose(std_BA, want_std_BA, atol=2e-6)
        found.append(want_BA)
        history = acting.acted(history, time, act_B[:, None])
    assert np.ptp(np.asarray(found), 0).min() > 1e-3


@pytest.mark.parametrize("changes", [
    dict(context="none", prompt_select="random"), dict(context="none", prompt_select="none", conditioning="none"),
    dict(context="task", head="gaussian", prompt_select="none"), dict(context="world", prompt_select="none")])
def test_members_of_the_family_trace(task, batch, changes):
    """Only their shapes: a program that traces and whose parts are tested in another member need not be compiled."""
    learner = build(task, **changes)
    params, carry = jax.eval_shape(learner.init, jax.random.key(1), batch)
    grads, _, means = jax.eval_shape(learner.grads, params, carry, batch, jax.random.key(2))
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert ("world" in params) == (changes["context"] == "world")
    assert jax.eval_shape(learner.predict, params, carry, batch)["act_BTA"].shape == (6, 5, 1)


def test_the_family_gives_actions_and_gradients(task, batch, golden):
    changes = dict(conditioning="histogram", head="gaussian", prompt_norm=False, prompt_select="random")
    learner = build(task, **changes)
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    grads, _, means = jax.jit(learner.grads)(params, carry, batch, jax.random.key(2))
    assert all(np.isfinite(np.asarray(g)).all() for g in jax.tree.leaves(grads)) and float(means["loss"].compute()) != 0
    golden("metadt", grads)
    out = jax.jit(learner.predict)(params, carry, batch)
    assert out["act_BTA"].shape == (6, 5, 1) and np.abs(np.asarray(out["act_BTA"])).max() <= 1
    assert (float(out["std_BTA"].max()) > 0) == (changes.get("head") == "gaussian")
    again = jax.jit(learner.predict)(params, carry, batch)
    np.testing.assert_array_equal(out["act_BTA"], again["act_BTA"])


def test_a_foreign_world_model_is_refused(tmp_path):
    """Before any device work: no source, an empty one, one with another context size. Nothing is written."""
    settings = config.load("configs/metadt.py:point", ("task.train_tasks=3", "task.test_tasks=2", "task.episodes=4"))
    source, out = tmp_path / "world", str(tmp_path / "out")
    for fields, text in (((), "config.init_from=: name the work directory that world comes from"),
                         (None, "holds no checkpoint"),
                         (("task.history=8",), "task.history=8; this config needs 4"),
                         (("learner.code=8",), "learner.code=8; this config needs 16"),
                         (("task.env.length=10",), "task.env.length=10; this config needs 20")):
        settings.unlock()
        settings.init_from = "" if fields == () else str(source)
        if fields:
            (source / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
            (source / "config.json").write_text(config.to_json(config.load("configs/metadt.py:point_world", fields)))
        with pytest.raises(ConfigError, match=text):
            train.run(settings, out, quiet=True)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes, text", [
    (dict(prompt=8), "prompt=8: must be at most task.prompt_span=7"), (dict(context="wrld"), "nearest: world"),
    (dict(world=dict(decoders="both")), "world.embed"), (dict(num_heads=3), "multiple of num_heads=3"),
    (dict(prompt_frac=2.0), "prompt_frac"), (dict(head="softmax"), "head=softmax"), (dict(depth=0), "depth=0"),
    (dict(dropout=1), "dropout=1: must be below 1"),
    (dict(world=dict(decoders="rewards", embed=4, hidden=8, code=4)), "world.decoders=rewards")])
def test_refusals(task, changes, text):
    with pytest.raises(ConfigError, match=text):
        build(task, **changes)


@pytest.mark.slow
def test_both_phases_learn(tmp_path):
    """World model, then a short policy on it: far better with a demonstration than zero actions."""
    world = config.load("configs/metadt.py:point_world", ("train.steps=1500", "train.save_every=1500"))
    assert train.run(world, str(tmp_path / "world"), quiet=True)["world"]["test_mse"] < 0.008
    settings = config.load("configs/metadt.py:point", (
        f"init_from={tmp_path / 'world'}", "train.steps=600", "train.save_every=600", "train.log_every=200",
        "evaluators.few.methods=('zero',)"))
    numbers = train.run(settings, str(tmp_path / "policy"), quiet=True)
    returns = numbers["demo"]
    assert returns["demo"] > returns["zero_action"] + 4 and returns["oracle"] > returns["demo"]
