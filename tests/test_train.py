"""The one loop: same bits resumed or not, no recompilation, broken batches, signals."""

import dataclasses
import json
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import RUN, final, same, settings, toy

from metalearn import cli, train
from metalearn.runtime import experiment as experiment_lib, loop, pretrained, sharding
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.writer import Writer
from metalearn.validate import ConfigError

SMALL = ["task.pca=4", "task.length=4", "evaluators.curves.sets=('unseen',)", "evaluators.curves.episodes=16",
         "train.eval_every=2"]


def started(experiment, seed=0):
    mesh = sharding.make_mesh(1)
    state = loop.make_init(experiment)(experiment.task.data, jax.random.key(seed))
    data = sharding.replicate(experiment.task.data, mesh)
    return sharding.replicate(state, mesh), loop.make_update(experiment, mesh), data


# --- the update -----------------------------------------------------------------------------------------------------


def test_one_program_for_all_calls_and_other_data():
    state, update, data = started(toy(settings()))
    for _ in range(3):
        state, means = update(state, data, jax.random.key(1), 2)
    data = sharding.replicate({"bad": np.float32(0.5)}, sharding.make_mesh(1))
    state, _ = update(state, data, jax.random.key(2), 2)
    assert update._cache_size() == 1 and state.step == 8 and means["loss"].total.shape == (2,)


def test_several_steps_per_call_are_the_same_steps():
    experiment = toy(settings())
    state, update, data = started(experiment)
    a, means_a = update(state, data, jax.random.key(1), 4)
    state, update, data = started(experiment)
    losses = []
    for _ in range(4):
        state, means = update(state, data, jax.random.key(1), 1)
        losses.append(float(means["loss"].total[0]))
    np.testing.assert_allclose(losses, means_a["loss"].total, rtol=1e-6)
    assert len(set(losses)) == 4  # every step has a batch of its own
    np.testing.assert_allclose(a.params["w"], state.params["w"], rtol=1e-6)


def test_the_seed_decides_every_bit():
    ends = []
    for seed in (0, 0, 1):
        state, update, data = started(toy(settings()), seed)
        ends.append(update(state, data, jax.random.key(7), 3)[0])
    assert same(ends[0], ends[1]) and not same(ends[0].params, ends[2].params)


def test_broken_batches_leave_params_moments_and_carry_alone():
    state, update, data = started(toy(settings()))
    state, _ = update(state, data, jax.random.key(1), 2)
    before = jax.device_get(state)
    state, means = update(state, data | {"bad": jnp.float32(1)}, jax.random.key(1), 2)
    assert same(state.params, before.params) and same(state.carry, before.carry)
    assert same(state.opt_state.inner, before.opt_state.inner) and state.opt_state.skipped == 2 and state.step == 4
    np.testing.assert_array_equal(means["skipped"].total, [1, 1])
    for _ in range(5):
        state, means = update(state, data | {"bad": jnp.float32(0.5)}, jax.random.key(1), 2)
        assert np.isfinite(state.params["w"]).all() and np.isfinite(state.carry["seen"])
    assert 2 < state.opt_state.skipped < 12 and not same(state.params, before.params)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_writes_what_it_should(whole, tmp_path):
    step, _, metrics, history = whole
    assert step == 12 and [json.loads(line)["step"] for line in metrics.splitlines()] == [6, 12]
    assert [json.loads(line)["step"] for line in history.splitlines()] == [4, 8, 12]
    assert Checkpoints(str(tmp_path / "whole" / "checkpoints")).steps() == [8, 12]
    headline = json.load(open(tmp_path / "whole" / "result.json"))
    assert headline["parameters"] == 2 and "w" in headline["e"]


@pytest.mark.parametrize("step", [2, 4, 8, 10])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_gone_on(whole, handlers, monkeypatch, tmp_path, capsys, step, number):
    make_update = loop.make_update

    def killing(experiment, mesh):
        update = make_update(experiment, mesh)

        def one(state, data, key, num):
            if int(state.step) + num == step:
                os.kill(os.getpid(), number)
            return update(state, data, key, num)

        return one

    monkeypatch.setattr(loop, "make_update", killing)
    argv = ["train", "--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/b", "--quiet",
            "--config.train.devices=1", *(f"--config.{o}" for o in RUN)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main(train.main)
    assert stop.value.code == cli.EXIT_SIGNAL and f"at step {step}; saved" in capsys.readouterr().err
    assert Checkpoints(str(tmp_path / "b" / "checkpoints")).steps()[-1] == step
    assert signal.getsignal(number) is signal.SIG_IGN and not os.path.exists(tmp_path / "b" / "result.json")
    monkeypatch.setattr(loop, "make_update", make_update)
    with pytest.raises(SystemExit) as stop:
        cli.main(train.main)
    assert stop.value.code == 0 and final(tmp_path / "b") == whole
    assert capsys.readouterr().out.splitlines()[-1].startswith("RESULT {")


@pytest.mark.parametrize("where, step", [("write", 6), ("write", 12), *(("write_history", i) for i in (4, 8, 12))])
def test_killed_and_gone_on(whole, monkeypatch, tmp_path, step, where):
    function = getattr(Writer, where)

    def die(self, at, numbers):
        function(self, at, numbers)
        if at == step:
            raise MemoryError("killed")

    monkeypatch.setattr(Writer, where, die)
    with pytest.raises(MemoryError):
        train.run(settings(*RUN), str(tmp_path / "b"), quiet=True)
    monkeypatch.setattr(Writer, where, function)
    train.run(settings(*RUN), str(tmp_path / "b"), quiet=True)
    assert final(tmp_path / "b") == whole


def test_a_finished_run_repeated_changes_no_number(whole, tmp_path):
    again = train.run(settings(*RUN), str(tmp_path / "whole"), quiet=True)
    assert final(tmp_path / "whole") == whole and again["parameters"] == 2


def test_the_newest_checkpoint_damaged_goes_on_from_the_one_before(whole, tmp_path, capsys):
    for path in (tmp_path / "whole" / "checkpoints" / "12" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * 10)
    (tmp_path / "whole" / "result.json").unlink()
    train.run(settings(*RUN), str(tmp_path / "whole"), quiet=True)
    assert final(tmp_path / "whole") == whole and "checkpoint 12" in capsys.readouterr().err


def test_all_checkpoints_damaged_exits_1_in_one_line(whole, monkeypatch, tmp_path, capsys):
    for path in (tmp_path / "whole" / "checkpoints").rglob("metadata"):
        path.write_text("{}")
    argv = ["train", "--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/whole", "--quiet",
            "--config.train.devices=1", *(f"--config.{o}" for o in RUN)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main(train.main)
    err = capsys.readouterr().err
    assert stop.value.code == 1 and "error: no healthy checkpoint" in err and "Traceback" not in err


def test_a_long_streak_of_broken_updates_stops_the_run(monkeypatch, tmp_path):
    def broken(config):
        experiment = toy(config)
        return dataclasses.replace(experiment, task=dataclasses.replace(experiment.task, data={"bad": np.float32(1)}))

    monkeypatch.setattr(experiment_lib, "build", broken)
    with pytest.raises(RuntimeError, match="4 updates in a row were not finite at step 4"):
        train.run(settings(*RUN, "train.log_every=2", "train.max_bad_steps=3"), str(tmp_path / "a"), quiet=True)


def test_another_config_is_refused(whole, tmp_path):
    with pytest.raises(ConfigError, match="optim.lr: 0.001 -> 0.5"):
        train.run(settings(*RUN, "optim.lr=0.5"), str(tmp_path / "whole"), quiet=True)
    assert final(tmp_path / "whole") == whole


def test_init_from_another_run(whole, tmp_path):
    source = f"init_from={tmp_path}/whole"
    found, _ = Checkpoints(str(tmp_path / "whole" / "checkpoints")).restore({"params": {"w": np.zeros(2, np.float32)}})
    train.run(settings("train.steps=1", source, "optim.lr=1e-12"), str(tmp_path / "b"), quiet=True)
    begun, _ = Checkpoints(str(tmp_path / "b" / "checkpoints")).restore({"params": {"w": np.zeros(2, np.float32)}})
    np.testing.assert_allclose(begun["params"]["w"], found["params"]["w"], atol=1e-6)
    with pytest.raises(ConfigError, match="no parameter's path matches nothing"):
        train.run(settings(source + "::nothing"), str(tmp_path / "c"), quiet=True)


def test_a_start_made_of_bare_numbers_is_strongly_typed_so_that_the_update_compiles_once():
    experiment = experiment_lib.build(settings())
    weak = lambda key, batch: ({"w": jnp.full((2,), 1.0)}, {"rate": jnp.asarray(0.5)})
    assert jax.eval_shape(lambda: weak(None, None))[0]["w"].weak_type
    experiment = dataclasses.replace(experiment, learner=dataclasses.replace(experiment.learner, init=weak))
    state = jax.eval_shape(loop.make_init(experiment), experiment.task.data, jax.random.key(0))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_init_from_takes_the_leaves_that_match_and_leaves_the_rest(tmp_path):
    theirs = {"net": {"w": np.ones(2, np.float32)}, "feedback": {"w": np.full(3, 2.0, np.float32)}}
    Checkpoints(str(tmp_path / "checkpoints")).save(1, {"params": theirs}, {})
    mine, plan = jax.tree.map(np.zeros_like, theirs), toy(settings()).plan
    part = pretrained.params(f"{tmp_path}::^feedback/", mine, (), plan)
    assert not part["net"]["w"].any() and (part["feedback"]["w"] == 2).all()
    whole = pretrained.params(str(tmp_path), mine, (), plan)
    assert (whole["net"]["w"] == 1).all()
    bare = {"feedback": mine["feedback"], "other": mine["net"]}  # what does not match need not be there at all
    assert (pretrained.params(f"{tmp_path}::^feedback/", bare, (), plan)["feedback"]["w"] == 2).all()


# --- the real thing -------------------------------------------------------------------------------------------------


def test_the_smoke_config_resumes_to_the_bit(monkeypatch, tmp_path):
    config, save = settings(*SMALL), Checkpoints.save
    train.run(config, str(tmp_path / "a"), quiet=True)

    def die(self, *args, **kw):
        save(self, *args, **kw)
        raise MemoryError("killed")

    monkeypatch.setattr(Checkpoints, "save", die)
    with pytest.raises(MemoryError):
        train.run(config, str(tmp_path / "b"), quiet=True)
    monkeypatch.setattr(Checkpoints, "save", save)
    assert Checkpoints(str(tmp_path / "b" / "checkpoints")).steps() == [2]
    train.run(config, str(tmp_path / "b"), quiet=True)
    assert final(tmp_path / "a") == final(tmp_path / "b") and final(tmp_path / "a")[0] == 4
    for name in ("eval/curves.json", "config.json"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
