"""What a run may be gone on with, what it answers when it is done, and changes that must not pass unseen."""

import dataclasses
import json
import os
import shutil
import signal
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from toys import RUN, final, settings

from metalearn import cli, train
from metalearn.runtime import experiment as experiment_lib, loop, manifest, signals
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.validate import ConfigError

pytestmark = pytest.mark.usefixtures("data_only")


def everything(path):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}


def test_a_finished_run_goes_on_to_more_steps_as_if_they_had_been_asked_for_at_once(whole, tmp_path):
    longer = (*RUN, "train.steps=24")
    train.run(settings(*longer), str(tmp_path / "at once"), quiet=True)
    train.run(settings(*longer), str(tmp_path / "whole"), quiet=True)
    assert final(tmp_path / "whole") == final(tmp_path / "at once") and final(tmp_path / "whole")[0] == 24
    assert "24" in (tmp_path / "whole" / "config.json").read_text()
    first, second = manifest.read(str(tmp_path / "whole"))["history"]
    assert (first["step"], second["step"], second["changed"]) == (0, 12, ["train.steps: 12 -> 24"])
    with pytest.raises(ConfigError, match="config.train.steps=12: the run is at step 24 already"):
        train.run(settings(*RUN), str(tmp_path / "whole"), quiet=True)


def test_a_schedule_that_ends_at_the_last_step_is_not_gone_on_with(toys, tmp_path):
    train.run(settings("optim.decay=cosine"), str(tmp_path / "a"), quiet=True)
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="config.train.steps=8: must stay 4: optim.decay=cosine"):
        train.run(settings("optim.decay=cosine", "train.steps=8"), str(tmp_path / "a"), quiet=True)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("change", ["train.keep=5", "train.log_every=4", "train.devices=0", "train.max_bad_steps=9",
                                    "evaluators.curves.episodes=32"])
def test_what_may_change(whole, tmp_path, change):
    """Such a run is evaluated anew, from the same parameters."""
    leaves = final(tmp_path / "whole")[:2]
    (tmp_path / "whole" / "result.json").write_text("{}")
    train.run(settings(*RUN, change), str(tmp_path / "whole"), quiet=True)
    assert final(tmp_path / "whole")[:2] == leaves
    assert "w" in json.loads((tmp_path / "whole" / "result.json").read_text())["e"]


def test_a_finished_run_answers_and_rewrites_nothing(whole, handlers, monkeypatch, tmp_path, capsys):
    before = everything(tmp_path)
    monkeypatch.setattr(experiment_lib, "build", None)  # nothing is built
    argv = ["--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/whole", "--config.train.devices=1",
            *(f"--config.{o}" for o in RUN)]
    monkeypatch.setattr(sys, "argv", ["train", *argv])
    began = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        cli.main(train.main)
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and time.monotonic() - began < 3 and everything(tmp_path) == before
    assert err.splitlines()[0] == f"finished at step 12; results in {tmp_path}/whole/result.json"
    assert json.loads(out.removeprefix("RESULT ")) == json.loads((tmp_path / "whole" / "result.json").read_text())


@pytest.mark.parametrize("text", ["", '{"a": 1', "[]"])
def test_a_damaged_result_is_made_again(whole, tmp_path, text):
    whole_result = json.loads((tmp_path / "whole" / "result.json").read_text())
    (tmp_path / "whole" / "result.json").write_text(text)
    assert train.run(settings(*RUN), str(tmp_path / "whole"), quiet=True)["e"] == whole_result["e"]
    assert json.loads((tmp_path / "whole" / "result.json").read_text())["e"] == whole_result["e"]


# --- changes that must not pass unseen --------------------------------------------------------------------------------


def stop_at_8(monkeypatch, tmp_path):
    """A run of RUN whose process died after step 8."""
    save = Checkpoints.save

    def die(self, step, *rest, **kw):
        save(self, step, *rest, **kw)
        if step == 8:
            raise MemoryError("killed")

    monkeypatch.setattr(Checkpoints, "save", die)
    with pytest.raises(MemoryError):
        train.run(settings(*RUN), str(tmp_path / "run"), quiet=True)
    monkeypatch.setattr(Checkpoints, "save", save)
    return tmp_path / "run"


def test_seconds_are_those_of_all_sessions_and_the_manifest_s_head_is_the_first_s(toys, monkeypatch, tmp_path):
    run = stop_at_8(monkeypatch, tmp_path)
    head = json.loads((run / "manifest.json").read_text())
    spent = Checkpoints(str(run / "checkpoints")).meta()["seconds"]
    monkeypatch.setattr(sys, "argv", ["again"])
    assert train.run(settings(*RUN), str(run), quiet=True)["seconds"] > spent > 0
    now = json.loads((run / "manifest.json").read_text())
    assert [line["step"] for line in now["history"]] == [0, 8] and now["history"][1]["command"] == "metalearn again"
    assert {k: v for k, v in now.items() if k != "history"} == {k: v for k, v in head.items() if k != "history"}
    assert now["history"][0] == head["history"][0]


def test_checkpoints_that_are_gone_do_not_start_it_anew(toys, monkeypatch, tmp_path):
    run = stop_at_8(monkeypatch, tmp_path)
    shutil.rmtree(run / "checkpoints")
    before = everything(run)
    with pytest.raises(ConfigError, match="its checkpoints are gone"):
        train.run(settings(*RUN), str(run), quiet=True)
    assert everything(run) == before


def test_other_data_than_before_are_refused(toys, monkeypatch, tmp_path):
    run = stop_at_8(monkeypatch, tmp_path)
    build = experiment_lib.build

    def other(config):
        experiment = build(config)
        task = dataclasses.replace(experiment.task, data={"bad": np.float32(0.25)})
        return dataclasses.replace(experiment, task=task)

    monkeypatch.setattr(experiment_lib, "build", other)
    with pytest.raises(ConfigError, match="its data are not those that the run was trained on"):
        train.run(settings(*RUN), str(run), quiet=True)


def test_other_versions_and_lost_metrics_are_said(toys, whole, monkeypatch, tmp_path, capsys):
    run = stop_at_8(monkeypatch, tmp_path)
    (run / "metrics.jsonl").unlink()
    versions = manifest.versions()
    monkeypatch.setattr(manifest, "versions", lambda: versions | {"jax": "9.9.9"})
    train.run(settings(*RUN), str(run), quiet=True)
    err = capsys.readouterr().err
    assert f"jax {versions['jax']} -> 9.9.9" in err and "numpy" not in err
    assert "metrics.jsonl lacks what was written from step 0 to 8" in err
    assert final(run)[:2] == whole[:2]


def test_a_directory_removed_under_the_run_is_no_success(toys, monkeypatch, tmp_path):
    make_update = loop.make_update

    def removing(experiment, mesh):
        update = make_update(experiment, mesh)

        def one(state, data, key, num):
            if int(state.step) == 6:
                shutil.rmtree(tmp_path / "run")
            return update(state, data, key, num)

        return one

    monkeypatch.setattr(loop, "make_update", removing)
    with pytest.raises(cli.Failure, match="was removed or replaced"):
        train.run(settings(*RUN), str(tmp_path / "run"), quiet=True)
    assert not os.path.exists(tmp_path / "run")


def test_parameters_that_are_not_finite_are_not_saved(toys, monkeypatch, tmp_path):
    make_update = loop.make_update

    def breaking(experiment, mesh):
        update = make_update(experiment, mesh)

        def one(state, data, key, num):
            state, means = update(state, data, key, num)
            return state.replace(params={"w": state.params["w"] * jnp.inf}) if int(state.step) > 4 else state, means

        return one

    monkeypatch.setattr(loop, "make_update", breaking)
    with pytest.raises(cli.Failure, match="step 8 was not saved: parameters are not finite .params/w."):
        train.run(settings(*RUN), str(tmp_path / "run"), quiet=True)
    assert Checkpoints(str(tmp_path / "run" / "checkpoints")).steps() == [4]


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["build", "headlines", "evaluate"])
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGHUP])
def test_a_signal_before_training_or_while_evaluating_ends_it_at_once(whole, handlers, monkeypatch, tmp_path, capsys,
                                                                      where, number):
    module = experiment_lib if where == "build" else train
    function = getattr(module, where)

    def signalled(*args):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # schedulers repeat theirs
        pytest.fail("went on")

    monkeypatch.setattr(module, where, signalled)
    argv = ["train", "--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/b", "--quiet",
            "--config.train.devices=1", *(f"--config.{o}" for o in RUN)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main(train.main)
    os.kill(os.getpid(), number)  # one more, on the way out
    assert stop.value.code == cli.EXIT_SIGNAL
    assert {"build": "before its first", "headlines": "at step 4", "evaluate": "at step 12"}[where] in (
        capsys.readouterr().err)
    monkeypatch.setattr(module, where, function)
    train.run(settings(*RUN), str(tmp_path / "b"), quiet=True)
    assert final(tmp_path / "b") == whole


def test_outside_a_program_signals_get_their_meaning_back():
    kept = signal.getsignal(signal.SIGTERM)
    with signals.Noted() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is kept
