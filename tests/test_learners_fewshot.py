"""Few-shot learners: every one learns its smoke episodes' gradient, meta-gradients agree with finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common, fewshot as configs
from metalearn import lookup
from metalearn.learners import embedded_transformer
from metalearn.learning.gradients import inner_loop
from metalearn.nn import network as network_nn
from metalearn.runtime import config as config_lib, experiment as experiment_lib
from metalearn.validate import ConfigError


def _key(n):
    return jax.random.key(n, impl="threefry2x32")


@functools.cache
def _batch(task_fields):
    """Two training episodes of a task, drawn once for all learners."""
    task = lookup.of_block("tasks", dict(task_fields))
    return jax.jit(lambda data, key: task.sample(data, key, "train", 2))(task.data, _key(1))


@functools.cache
def _parts(arg, *overrides):
    """(experiment, params, carry, batch, predict) of a config, compiled once for all tests."""
    config = config_lib.load(f"configs/fewshot.py:{arg}", overrides)
    experiment = experiment_lib.build(config)
    batch, key = _batch(tuple(config.task.to_dict().items())), jax.random.split(_key(0))[1]
    params, carry = jax.jit(experiment.learner.init)(key, batch)
    return experiment, params, carry, batch, jax.jit(experiment.learner.predict)


@pytest.mark.parametrize("name", list(configs.LEARNERS))
def test_gradients_are_finite_and_reach_every_parameter(name, golden):
    # as the golden was recorded; fifteen steps of conjugate gradients would gather rounding
    few = ("learner.inner_steps=5", "learner.eval_steps=10", "learner.cg_steps=5") if name == "imaml" else ()
    experiment, params, carry, batch, predict = _parts(f"smoke,{name}", *few)
    grads, _, means = jax.jit(experiment.learner.grads)(params, carry, batch, _key(2))
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    dead = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(grads)
            if not (np.isfinite(g).all() and np.abs(g).max() > 0)]
    # a constant added to every logit of a ridge head changes no softmax
    assert [d for d in dead if name != "r2d2" or d != "['bias']"] == []
    assert float(means["loss"].count) > 0
    golden(name, grads)
    out = predict(params, carry, batch)
    assert out.shape == (*batch.y_BT.shape, 3) and np.isfinite(out).all()


@pytest.mark.parametrize("name", ["protonet", "matchingnet", "r2d2", "embedded_transformer", "maml", "imaml",
                                  "embedded_transformer,network=lstm"])
def test_an_answer_does_not_depend_on_the_queries_labels(name):
    _, params, carry, batch, predict = _parts(f"smoke,{name}")
    S = int((batch.mask_BT[0] == 0).sum())
    other = batch.replace(y_BT=batch.y_BT.at[:, S:].set(0))
    np.testing.assert_array_equal(predict(params, carry, batch), predict(params, carry, other))


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_a_query_reads_the_support_and_itself(name):
    net = network_nn.make(common.NETWORKS[name], network_nn.NetworkSpec(3, 4, "support_query", 6, "float32", 1))
    tokens_BLI = jax.random.normal(_key(0), (2, 6, 7))
    params = jax.jit(net.init)(_key(1), tokens_BLI)
    read = jax.jit(lambda tokens_BLI: embedded_transformer.read(net, params, tokens_BLI, 4))
    together = read(tokens_BLI)
    alone = [read(tokens_BLI[:, jnp.array([0, 1, 2, 3, q])]) for q in (4, 5)]
    np.testing.assert_allclose(together, jnp.concatenate(alone, 1), atol=1e-6)
    other = read(tokens_BLI.at[:, 0].add(1.0))
    assert (np.abs(together - other).max(-1) > 1e-6).all()


@pytest.mark.parametrize("name", ["protonet", "matchingnet", "r2d2"])
def test_renaming_labels_renames_answers(name):
    _, params, carry, batch, predict = _parts(f"smoke,{name}")
    order = jnp.array([2, 0, 1])
    plain = predict(params, carry, batch)
    renamed = predict(params, carry, batch.replace(y_BT=order[batch.y_BT]))
    np.testing.assert_allclose(plain, renamed[..., order], atol=1e-4)


@pytest.mark.parametrize("order,exact", [("second", 0), ("first", 0), ("truncated", 1)])
def test_maml_gradient_of_a_quadratic_is_the_known_one(order, exact):
    # loss a (w - 1)^2 / 2: after n steps w - 1 shrinks by (1 - lr a) each; its derivative is that product if exact
    a, lr, steps = 2.0, 0.1, 3
    exact = {"second": steps, "first": 0, "truncated": exact}[order]

    def end(w):
        return inner_loop(lambda w: 0.5 * a * (w["w"] - 1) ** 2, {"w": w}, lr, steps, exact, True)["w"]

    assert float(end(jnp.float32(3.0))) == pytest.approx(1 + 2 * (1 - lr * a) ** steps, rel=1e-5)
    assert float(jax.grad(end)(jnp.float32(3.0))) == pytest.approx((1 - lr * a) ** exact, rel=1e-5)


def test_maml_meta_gradient_agrees_with_finite_differences():
    experiment, params, _, batch, _ = _parts("sinusoid,maml", "learner.inner_steps=2")
    grads = lambda params: experiment.learner.grads(params, (), batch, _key(2))
    grads, loss = jax.jit(grads), jax.jit(lambda p: grads(p)[2]["loss"].compute())
    direction = jax.tree.map(lambda p: jax.random.normal(_key(3), p.shape), params)
    moved = lambda e: jax.tree.map(lambda p, d: p + e * d, params, direction)
    slope = float(loss(moved(1e-3)) - loss(moved(-1e-3))) / 2e-3
    dot = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads(params)[0], direction)))
    assert slope == pytest.approx(float(dot), rel=0.02)


@pytest.mark.parametrize("name", ["maml", "protonet", "r2d2", "embedded_transformer"])
def test_one_batch_can_be_learnt_by_heart(name, lr=3e-3):
    experiment, params, carry, batch, _ = _parts(f"smoke,{name}")

    def step(params, _):
        grads, _, means = experiment.learner.grads(params, carry, batch, _key(2))
        return jax.tree.map(lambda p, g: p - lr * jnp.sign(g), params, grads), means["loss"].compute()

    losses = np.asarray(jax.jit(lambda p: jax.lax.scan(step, p, None, length=150)[1])(params))
    assert losses[-10:].mean() < 0.5 * losses[0]


@pytest.mark.parametrize("overrides,word", [
    (["task.ways=9"], "classes"), (["task.rotations=some"], "rotations"), (["task.queries=400"], "examples"),
    (["task.test_split=classes:3-99"], "split"), (["task.dataset=nowhere"], "nowhere"),
    (["task.form=stream"], "support_query"),
    (["learner.backbone.depth=5"], "max-pool"), (["learner.backbone.down=sideways"], "down"),
])
def test_bad_input_is_one_line(overrides, word):
    with pytest.raises(ConfigError) as error:
        experiment_lib.build(config_lib.load("configs/fewshot.py:smoke", overrides))
    assert word in str(error.value) and "\n" not in str(error.value)


def test_zero_inner_steps_is_joint_training():
    """The baseline of functions: the gradient is that of one network for all tasks, whatever the support says."""
    experiment, params, _, batch, _ = _parts("sinusoid,pretrained")
    grads = jax.jit(lambda batch: experiment.learner.grads(params, (), batch, _key(2))[0])
    S = experiment.task.spec.shots
    other = batch.replace(y_BT=batch.y_BT.at[:, :S].add(5.0))
    for a, b in zip(jax.tree.leaves(grads(batch)), jax.tree.leaves(grads(other)), strict=True):
        np.testing.assert_array_equal(a, b)
