"""Replicas: each one is its own single run, none knows of the others, and what is not traced is refused."""

from __future__ import annotations

import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared

from metalearn import eval as eval_program, train
from metalearn.measure import statistics
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, optimiser, replicas
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import Experiment
from metalearn.types import EpisodeSpec, Evaluator, Learner, Mean, TaskDist, record
from metalearn.validate import ConfigError

BROKEN = 13  # a number of tasks at which the toy's batches are NaN
RTOL = 2e-5  # a replica against its own single run: a batched product may add in another order


@record
class Batch:
    x_BX: jax.Array


def toy(config) -> Experiment:
    """A noisy line fit with a carry, whose inputs grow with `num_tasks`, so that its gradients are clipped."""

    def sample(data, key, split, num):
        scale = jnp.where(data["num_tasks"] == BROKEN, jnp.nan, jnp.sqrt(1.0 * data["num_tasks"]))
        return Batch(scale * jax.random.normal(key, (num, 2)))

    def init(key, batch):
        return {"w": jax.random.normal(key, (2,))}, {"seen": jnp.zeros(())}

    def grads(params, carry, batch, key):
        loss = lambda p: ((batch.x_BX @ p["w"] - 1 + 0.1 * jax.random.normal(key)) ** 2).mean()
        value, slope = jax.value_and_grad(loss)(params)
        return slope, {"seen": carry["seen"] + batch.x_BX.sum()}, {"loss": Mean.of(value)}

    def run(params, carry):
        assert params["w"].shape == (2,) and carry["seen"].shape == (), "an evaluator sees one network"
        return {"headline": {"w": float(params["w"].sum()), "name": "toy"}}

    tx = optimiser.make(**config.optim.to_dict(), total_steps=config.train.steps)
    task = TaskDist({"num_tasks": np.int32(config.task.num_tasks)}, sample, ("train",),
                    EpisodeSpec(length=1, features=1, targets="classes", outputs=4), {},
                    {"num_tasks": np.int32})
    learner = Learner(init, grads, lambda *_: None, lambda length: 0,
                      warn=lambda numbers: ["no loss"] * math.isnan(numbers["loss"]))
    plan = replicas.plan(config, task)
    return Experiment(config, task, learner, tx, {"e": Evaluator(run)}, plan)


TOY = ("task.num_tasks=1", "train.steps=12", "train.log_every=6", "train.save_every=4", "train.eval_every=4",
       "optim.lr=0.05", "optim.decay=cosine", "optim.warmup_steps=2", "train.max_bad_steps=4")


def settings(*overrides):
    return config_lib.load("configs/gpicl.py:smoke", ["train.devices=1", *TOY, *overrides])


def vary(num, **fields):
    return f"replicas.num={num}", f"replicas.vary={ {k.replace('__', '.'): v for k, v in fields.items()} }"


TOYS = {}  # experiments of this file


@pytest.fixture
def toys(monkeypatch):
    shared(monkeypatch, toy, TOYS)


def final(workdir) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"))
    leaves = checkpoints.meta()["leaves"]
    shapes = {k: np.zeros(v["shape"], v["dtype"]) for k, v in leaves.items()}
    flat, _ = checkpoints.restore(shapes)
    return {k: np.asarray(v) for k, v in flat.items()}


def lines(workdir, name="metrics.jsonl"):
    return [json.loads(line) for line in open(os.path.join(workdir, name))]


@pytest.mark.parametrize("at_once", [0, 1, 2])
def test_each_replica_is_its_own_single_run(toys, tmp_path, at_once):
    rates, tasks, seeds = (0.05, 0.2, 0.01), (1, 400, 1), (3, 4, 5)
    config = settings("seed=3", *vary(3, optim__lr=rates, task__num_tasks=tasks), f"replicas.at_once={at_once}")
    train.run(config, str(tmp_path / "all"), quiet=True)
    together, logged = final(tmp_path / "all"), lines(tmp_path / "all")
    result = json.loads((tmp_path / "all" / "result.json").read_text())
    assert "e" not in result, "a mean over different settings says nothing"
    for r in range(3):
        alone = tmp_path / str(r)
        train.run(settings(f"seed={seeds[r]}", f"optim.lr={rates[r]}", f"task.num_tasks={tasks[r]}"), str(alone),
                  quiet=True)
        for name, leaf in final(alone).items():
            mine = together[name] if name == "step" else together[name][r]
            np.testing.assert_allclose(mine, leaf, rtol=RTOL, atol=1e-6, err_msg=name)
        for a, b in zip(logged, lines(alone), strict=True):
            for name in ("loss", "grad_norm"):
                assert a["by_replica"][name][r] == pytest.approx(b[name], rel=1e-4)
        for a, b in zip(lines(tmp_path / "all", "eval/history.jsonl"), lines(alone, "eval/history.jsonl"), strict=True):
            assert a["replicas"][r]["e"]["w"] == pytest.approx(b["e"]["w"], rel=1e-4) and a["step"] == b["step"]
        assert result["replicas"][r]["setting"] == {"seed": seeds[r], "optim.lr": rates[r], "task.num_tasks": tasks[r]}
    norms = logged[0]["by_replica"]["grad_norm"]
    assert norms[1] > 10 > norms[0], "the second replica is clipped hard, and nobody else"


def test_a_diverging_replica_freezes_alone(toys, tmp_path, capsys):
    for name, first in (("broken", BROKEN), ("whole", 4)):
        train.run(settings(*vary(2, task__num_tasks=(first, 2))), str(tmp_path / name), quiet=True)
    assert "warning: step 6: replica 0: its updates are not finite" in capsys.readouterr().err
    broken, whole = final(tmp_path / "broken"), final(tmp_path / "whole")
    for name in whole:
        if name != "step":  # the same program: to the bit
            np.testing.assert_array_equal(broken[name][1], whole[name][1], err_msg=name)
    assert broken["opt_state/skipped"].tolist() == [12, 0] and broken["carry/seen"][0] == 0
    start = loop.make_init(toy(settings()))({"num_tasks": np.int32(1)}, jax.random.split(
        jax.random.key(0, impl="threefry2x32"))[0])
    np.testing.assert_array_equal(broken["params/w"][0], start.params["w"])
    result = json.loads((tmp_path / "broken" / "result.json").read_text())
    assert [r["skipped"] for r in result["replicas"]] == [12, 0]
    line = lines(tmp_path / "broken")[0]
    assert line["by_replica"]["loss"][0] is None and line["loss"] == line["by_replica"]["loss"][1]
    with pytest.raises(RuntimeError, match="6 updates in a row were not finite at step 6"):
        train.run(settings(*vary(2, task__num_tasks=(BROKEN, BROKEN))), str(tmp_path / "both"), quiet=True)


def test_stopped_and_gone_on_to_the_same_bits(toys, monkeypatch, tmp_path):
    config, save = settings(*vary(2, seed=(5, 9))), Checkpoints.save
    train.run(config, str(tmp_path / "a"), quiet=True)

    def die(self, *args, **kw):
        save(self, *args, **kw)
        raise MemoryError("killed")

    monkeypatch.setattr(Checkpoints, "save", die)
    for _ in range(2):
        with pytest.raises(MemoryError):
            train.run(config, str(tmp_path / "b"), quiet=True)
    monkeypatch.setattr(Checkpoints, "save", save)
    train.run(config, str(tmp_path / "b"), quiet=True)
    a, b = final(tmp_path / "a"), final(tmp_path / "b")
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    for name in ("metrics.jsonl", "eval/history.jsonl"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_replicas_start_from_another_runs_replicas_or_from_its_only_one(toys, tmp_path):
    train.run(settings(), str(tmp_path / "one"), quiet=True)
    train.run(settings("replicas.num=2"), str(tmp_path / "two"), quiet=True)
    for source in ("one", "two"):
        config = settings("replicas.num=2", f"init_from={tmp_path}/{source}", "train.steps=1", "optim.warmup_steps=0",
                          "optim.lr=1e-12")
        train.run(config, str(tmp_path / f"from_{source}"), quiet=True)
        begun, left = final(tmp_path / f"from_{source}")["params/w"], final(tmp_path / source)["params/w"]
        np.testing.assert_allclose(begun, np.broadcast_to(left, (2, 2)), atol=1e-6)


# --- the real thing -------------------------------------------------------------------------------------------------

SMALL = ("task.pca=4", "task.length=4", "evaluators.curves.sets=('seen', 'unseen')", "evaluators.curves.episodes=16",
         "train.devices=1", "optim.eps=1e-3")  # keys' biases have no gradient but rounding, which Adam would blow up


def test_tasks_and_seeds_of_a_transformer_side_by_side(tmp_path):
    config = config_lib.load("configs/gpicl.py:smoke", [*SMALL, *vary(3, seed=(0, 1, 1), task__num_tasks=(1, 8, 0))])
    result = train.run(config, str(tmp_path / "all"), quiet=True)
    alone = train.run(config_lib.load("configs/gpicl.py:smoke", [*SMALL, "seed=1", "task.num_tasks=8"]),
                      str(tmp_path / "one"), quiet=True)
    mine, single = final(tmp_path / "all"), final(tmp_path / "one")
    for name, leaf in single.items():
        np.testing.assert_allclose(mine[name] if name == "step" else mine[name][1], leaf, rtol=1e-3, atol=2e-5,
                                   err_msg=name)
    row = result["replicas"][1]
    assert row["curves"]["seen_last"] == pytest.approx(alone["curves"]["seen_last"], abs=0.05)
    assert row["curves"]["episodes_sha256"] == alone["curves"]["episodes_sha256"], "on the episodes of its own tasks"
    assert row["curves"]["episodes_sha256"] != result["replicas"][2]["curves"]["episodes_sha256"]
    assert result["parameters"] == alone["parameters"]
    again = eval_program.run(str(tmp_path / "all"))
    assert [{**r, "skipped": 0} for r in again["replicas"]] == result["replicas"]


def test_evaluators_of_several_replicas_compile_once():
    from metalearn.evaluators import learning_curves
    from metalearn.measure import frozen

    overrides = [*SMALL, "learner.network.width=8", *vary(2, task__num_tasks=(1, 8))]
    experiment = experiment_lib.build(config_lib.load("configs/gpicl.py:smoke", overrides))
    assert experiment.by_replica[0] is not experiment.by_replica[1]
    state = loop.make_init(experiment)(replicas.data(experiment.plan, experiment.task.data),
                                        replicas.split(experiment.plan, replicas.roots(experiment.plan))[0])
    before = learning_curves._score._cache_size(), frozen.draw._cache_size()
    eval_program.headlines(experiment, state.params, state.carry)
    assert learning_curves._score._cache_size() == before[0] + 1
    assert frozen.draw._cache_size() == before[1] + 2  # one for each split


# --- what is refused, and how results are put together ---------------------------------------------------------------


@pytest.mark.parametrize("overrides, words", [
    (vary(2, optim__clip=(1.0, 2.0)), "replicas.vary.optim.clip.*may vary seed, optim.lr, task.num_tasks"),
    (vary(2, task__task_seed=(1, 2)), "replicas.vary.task.task_seed.*not traced"),
    (vary(2, seed=(1, 2, 3)), "replicas.vary.seed.*a value for each of replicas.num=2"),
    (vary(2, seed=(1, -2)), "replicas.vary.seed=-2"),
    (vary(2, optim__lr=(1e-3, "fast")), "replicas.vary.optim.lr=fast.*float"),
    (vary(2, optim__lr=(1e-3, -1.0)), "replicas.vary.optim.lr=-1.0"),
    (vary(2, task__num_tasks=(1, -1)), "replicas.vary.task.num_tasks=-1"),
    (("replicas.num=0",), "replicas.num=0"),
    (("replicas.at_once=2",), "replicas.at_once=2.*between 0 .all. and 1"),
])
def test_what_cannot_vary_is_refused_with_what_can(overrides, words):
    with pytest.raises(ConfigError, match=words):
        experiment_lib.build(config_lib.load("configs/gpicl.py:smoke", [*SMALL, *overrides]))


def plan(*settings):
    return replicas.Plan(len(settings), len(settings), tuple(s["seed"] for s in settings), (), {}, settings)


def test_a_mean_over_seeds_has_students_interval_and_leaves_out_what_is_missing():
    rows = [dict(a=a, b={"x": 1.0}, hash="h", phase=phase) for a, phase in ((1.0, "p"), (2.0, "q"), (None, "q"))]
    found = replicas.summary(plan(dict(seed=0), dict(seed=1), dict(seed=2)), rows)
    mean, half = statistics.interval([1.0, 2.0])
    assert (found["a"], found["intervals"]["a"]) == (mean, half) and found["hash"] == "h" and "phase" not in found
    assert found["b"] == {"x": 1.0} and found["intervals"]["b"] == {"x": 0.0}
    assert [r["phase"] for r in found["replicas"]] == ["p", "q", "q"] and found["replicas"][2]["setting"] == {"seed": 2}
    assert replicas.summary(plan(dict(seed=0)), rows[:1]) == rows[0]


def test_results_of_replicas_become_one_with_curves_of_means():
    result = lambda y: {"headline": {"a": y}, "curves": [{"title": "t", "x": [0, 1], "series": [
        {"name": "n", "y": [y, None], "ci95": None}]}]}
    both = replicas.merge(plan(dict(seed=0), dict(seed=1)), [result(1.0), result(3.0)])
    series = both["curves"][0]["series"][0]
    assert series["y"] == [2.0, None] and series["ci95"][0] == pytest.approx(12.706, rel=1e-3)
    assert both["tables"][0]["columns"] == ["replica", "mean ± 95 %", "0", "1"] and len(both["replicas"]) == 2
    other = plan(dict(seed=0, K=1), dict(seed=0, K=2))
    apart = replicas.merge(other, [result(1.0), result(3.0)])
    assert apart["curves"] == [] and apart["tables"][0]["columns"] == ["replica", "0", "1"]
