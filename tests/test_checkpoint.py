"""The program that looks at checkpoints: each leaf good or why not, and a refused update made again."""

import json
import sys

import pytest
from toys import RUN, settings, toy

from metalearn import checkpoint, cli, train
from metalearn.runtime import experiment as experiment_lib
from metalearn.runtime.guard import Diverged

pytestmark = pytest.mark.usefixtures("data_only")


def call(monkeypatch, capsys, *argv):
    """(exit code, RESULT, standard error)"""
    monkeypatch.setattr(sys, "argv", ["checkpoint", *argv])
    with pytest.raises(SystemExit) as stop:
        cli.main(checkpoint.main)
    out, err = capsys.readouterr()
    last = (out.splitlines() or [""])[-1]
    return stop.value.code, json.loads(last.removeprefix("RESULT ")) if last else None, out + err


def test_verify(whole, monkeypatch, tmp_path, capsys):
    run = tmp_path / "whole"
    code, result, text = call(monkeypatch, capsys, "verify", str(run))
    assert (code, result) == (0, {"good": [8, 12], "bad": []}) and "opt_state/skipped" in text
    for path in (run / "checkpoints" / "8" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    code, result, text = call(monkeypatch, capsys, "verify", str(run))
    assert (code, result) == (1, {"good": [12], "bad": [8]}) and "Traceback" not in text
    assert call(monkeypatch, capsys, "verify", str(tmp_path))[0] == cli.EXIT_CONFIG
    assert call(monkeypatch, capsys, "replay", str(run))[0] == cli.EXIT_CONFIG


def test_strict_does_not_fall_back(whole, handlers, monkeypatch, tmp_path, capsys):
    (tmp_path / "whole" / "result.json").unlink()
    (tmp_path / "whole" / "checkpoints" / "12" / "meta" / "metadata").write_text("{}")
    argv = ["train", "--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/whole", "--quiet",
            "--config.train.devices=1", *(f"--config.{o}" for o in RUN)]
    for more, code in ((["--strict"], 1), ([], 0)):
        monkeypatch.setattr(sys, "argv", argv + more)
        with pytest.raises(SystemExit) as stop:
            cli.main(train.main)
        assert stop.value.code == code and "checkpoint 12" in capsys.readouterr().err


def test_replay(monkeypatch, tmp_path, capsys):
    def broken(config, task=None):
        experiment = toy(config)
        experiment.task.data["bad"] = 2.0
        return experiment

    monkeypatch.setattr(experiment_lib, "build", broken)
    with pytest.raises(Diverged):
        train.run(settings(*RUN, "train.log_every=2", "train.max_bad_steps=2"), str(tmp_path / "a"), quiet=True)
    code, result, text = call(monkeypatch, capsys, "replay", str(tmp_path / "a"))
    assert code == 0 and result == {"step": 0, "not_finite": {"parameters": {}, "batch": {"x_BX": 16},
                                                              "gradients": {"w": 2}}}
