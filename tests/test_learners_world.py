"""The world model: what its code may see, its loss by hand, and the contrastive objectives' signs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.learners import world
from metalearn.nn import world as world_nn
from metalearn.validate import ConfigError

TASK = dict(env=dict(name="velocity", length=10), data="", cache="", behaviour="history", quality="mixed", sac={},
            train_tasks=4, test_tasks=2, episodes=6,
            task_seed=0, data_seed=0, history=3, window=4, start_frac=0.5, prompt_span=0, prompt_top=0,
            conditioning="return", scale=10.0)
FIELDS = dict(decoders="both", embed=4, hidden=8, code=4, objective="model", noise=0.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lookup.build("tasks", "offline", **TASK).collect(str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def batch(task):
    return jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(0), "train", 16)


@pytest.fixture(scope="module")
def made(task, batch):
    learner = lookup.build("learners", "world", task.spec, **FIELDS)
    learner = dataclasses.replace(learner, predict=jax.jit(learner.predict))
    return learner, *jax.jit(learner.init)(jax.random.key(1), batch)


def test_a_code_reads_the_h_steps_before_it(made, batch):
    learner, params, carry = made
    t, h = 2, 3
    slope = jax.jit(jax.grad(lambda rew: learner.predict(
        params, carry, batch.replace(body=batch.body.replace(rew_BT=rew)))["code_BTC"][0, t].sum()))(batch.body.rew_BT)
    touched = np.flatnonzero(np.abs(np.asarray(slope[0])))
    assert set(touched) <= set(range(t, t + h)) and len(touched) >= 2  # a ReLU may be shut for one of them
    assert not np.asarray(slope[1:]).any()


def test_a_first_step_has_the_code_of_nothing(made, batch):
    learner, params, carry = made
    code_BTC = learner.predict(params, carry, batch)["code_BTC"]
    first_B = np.flatnonzero(np.asarray(batch.body.mask_BT[:, :3]).sum(1) == 0)
    assert len(first_B) >= 2
    same_BC = np.broadcast_to(code_BTC[first_B[0], 0], (len(first_B), 4))
    np.testing.assert_allclose(code_BTC[first_B, 0], same_BC, atol=1e-6)


def test_loss_and_errors_by_hand(task, made, batch, golden):
    learner, params, carry = made
    grads, _, means = jax.jit(learner.grads)(params, carry, batch, jax.random.key(0))
    golden("world", grads)
    out = jax.device_get(learner.predict(params, carry, batch))
    now = jax.device_get(jax.tree.map(lambda a: a[:, 3:], batch.body))
    on = now.mask_BT > 0
    reward = ((out["rew_BT"] - now.rew_BT) ** 2)[on].mean()
    state = (((out["next_BTS"] - now.next_BTS) / task.spec.statistics.obs_std_S) ** 2).mean(-1)[on].mean()
    np.testing.assert_allclose(means["loss"].compute(), reward + state, rtol=1e-4)
    error = np.abs(out["rew_BT"] - now.rew_BT) / task.spec.statistics.rew_std + np.abs(
        (out["next_BTS"] - now.next_BTS) / task.spec.statistics.obs_std_S).mean(-1)
    np.testing.assert_allclose(out["error_BT"], error * now.mask_BT, rtol=1e-4, atol=1e-5)


def test_changes_of_state_are_in_units_of_their_spread(task, batch):
    """A decoder that says nothing predicts that nothing moves, and its error is the change itself."""
    learner = lookup.build("learners", "world", task.spec, **(FIELDS | dict(decoders="change")))
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    params["world"]["transition"]["out"] = jax.tree.map(jnp.zeros_like, params["world"]["transition"]["out"])
    out = jax.device_get(jax.jit(learner.predict)(params, carry, batch))
    now = jax.device_get(jax.tree.map(lambda a: a[:, 3:], batch.body))
    np.testing.assert_array_equal(out["next_BTS"], now.obs_BTS)
    error = np.abs((now.next_BTS - now.obs_BTS) / task.spec.statistics.change_std_S).mean(-1) * now.mask_BT
    np.testing.assert_allclose(out["error_BT"], error, rtol=1e-4, atol=1e-5)
    assert "rew_BT" not in out


def test_published_size(tmp_path):
    """Encoder and reward decoder of the paper's Point-Robot setting, to the parameter."""
    from metalearn.tasks import offline

    fields = TASK | dict(env=dict(name="point_robot", length=8, goal_range=1.0), history=4)
    task = offline.make(**fields)
    task = task.collect(str(tmp_path))
    batch = jax.eval_shape(lambda data: task.sample(data, jax.random.key(0), "train", 2), task.data)
    net = world_nn.make(task.spec, decoders="reward", embed=16, hidden=128, code=16)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), batch.body)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), zeros)["params"])
    count = {k: sum(leaf.size for leaf in jax.tree.leaves(v)) for k, v in params.items()}
    assert count == {"encoder": 70_544, "reward": 25_057}


@pytest.mark.parametrize("objective", ["contrast", "csro"])  # csro is metric and more
def test_other_objectives_give_finite_gradients_to_the_encoder(task, batch, objective):
    learner = lookup.build("learners", "world", task.spec, **(FIELDS | dict(objective=objective, decoders="reward")))
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    grads, _, means = jax.jit(learner.grads)(params, carry, batch, jax.random.key(0))
    assert all(np.isfinite(np.asarray(g)).all() for g in jax.tree.leaves(grads))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads["world"]["encoder"])) > 0
    assert "objective" in means


def test_objectives_want_tasks_apart():
    """Both losses are lower for codes that tell two tasks apart than for codes that mix them."""
    task_B, weight_B = jnp.array([0, 0, 1, 1]), jnp.ones(4)
    apart = jnp.array([[1.0, 0], [1, 0.1], [-1, 0], [-1, 0.1]])
    mixed = apart[jnp.array([0, 2, 1, 3])]
    metric, contrast = jax.jit(world._metric), jax.jit(world._contrast)
    assert metric(apart, task_B, weight_B) < metric(mixed, task_B, weight_B)
    wrong = jnp.array([[0.0, -1.0]] * 4)
    assert contrast(apart, task_B, weight_B, wrong) < contrast(mixed, task_B, weight_B, wrong)


def test_a_first_step_leaves_the_contrast_finite():
    """Its code is exactly zero and counts for nothing; its slope must not be NaN all the same."""
    code_BC = jnp.array([[0.0, 0.0], [1, 0.1], [-1, 0], [-1, 0.1]])
    task_B, weight_B = jnp.array([0, 0, 1, 1]), jnp.array([0.0, 1, 1, 1])
    slope = jax.jit(jax.grad(world._contrast))(code_BC, task_B, weight_B, -code_BC)
    assert np.isfinite(np.asarray(slope)).all() and np.asarray(slope[1:]).any()


def test_refusals(task):
    for changes, text in ((dict(objective="focal"), "objective=focal"), (dict(decoders="r"), "decoders=r: must"),
                          (dict(code=0), "code=0"), (dict(noise=-1.0), "noise")):
        with pytest.raises(ConfigError, match=text):
            lookup.build("learners", "world", task.spec, **(FIELDS | changes))
