"""One process at a time holds a work directory, and one config owns it."""

import json
import os
import subprocess
import sys

import pytest

from metalearn import api, eval as eval_program, train
from metalearn.cli import Failure
from metalearn.runtime import config as config_lib, experiment as experiment_lib, workdir
from metalearn.validate import ConfigError

HOLD = """
import sys
from metalearn.runtime import config, workdir
with workdir.hold(sys.argv[1], config.load("configs/gpicl.py:smoke")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def config():
    return config_lib.load("configs/gpicl.py:smoke")


def files(path):
    return {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_hold_creates_and_reopens(tmp_path, config):
    path = tmp_path / "a" / "b"
    assert workdir.check(str(path), config) == (True, ()) and not path.exists()
    with workdir.hold(str(path), config) as held:
        assert held.path == str(path) and config_lib.differences(workdir.read_config(held.path), config) == []
        assert f"pid {os.getpid()} " in (path / ".lock").read_text()
    assert workdir.check(str(path), config) == (False, ())
    before = (path / "config.json").stat().st_mtime_ns
    with workdir.hold(str(path), config):
        assert (path / ".lock").read_text().count("\n") == 1
    assert (path / "config.json").stat().st_mtime_ns == before


def test_the_lock_of_another_process(tmp_path, config):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        before = files(tmp_path)
        with pytest.raises(ConfigError, match=f"in use by pid {other.pid} on "):
            with workdir.hold(str(tmp_path / "run"), config):
                pass
        assert files(tmp_path) == before
    finally:
        other.kill()
        other.wait()
    with workdir.hold(str(tmp_path / "run"), config):  # a killed owner leaves no lock behind
        pass


def test_another_config_is_refused_with_its_fields(tmp_path, config):
    with workdir.hold(str(tmp_path), config):
        pass
    before = files(tmp_path)
    other = config_lib.load("configs/gpicl.py:smoke", ["optim.lr=0.5", "seed=3"])
    with pytest.raises(ConfigError, match=r"these differ: optim.lr: 0.001 -> 0.5; seed: 0 -> 3$"):
        with workdir.hold(str(tmp_path), other):
            pass
    assert files(tmp_path) == before


def test_a_directory_with_other_files_is_refused(tmp_path, config):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds other files .notes.txt."):
        workdir.check(str(tmp_path), config)
    (tmp_path / "notes.txt").rename(tmp_path / ".lock")  # what a killed start may have left
    assert workdir.check(str(tmp_path), config) == (True, ())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"evaluators": {"../x": {}}}', "[" * 100000, '"x"',
                                  "\xff"])
def test_a_broken_config_json(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ConfigError, match="not valid JSON"):
        workdir.read_config(str(tmp_path))


def test_an_unwritable_place(tmp_path, config):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="--workdir=.*cannot be written to"):
        with workdir.hold(str(tmp_path / "file" / "run"), config):
            pass


def test_write_text_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = str(tmp_path / "sub" / "a.json")
    workdir.write_json(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        workdir.write_json(path, {"a": 2})
    assert json.load(open(path)) == {"a": 1}


@pytest.mark.parametrize("name", ["config.json.123.tmp", "manifest.json.4.tmp"])
def test_a_start_that_was_killed_while_writing_is_started_again(tmp_path, config, name):
    (tmp_path / name).write_text("{")
    with workdir.hold(str(tmp_path), config):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.json"]


def test_temporary_files_of_processes_that_live_stay(tmp_path, config):
    with workdir.hold(str(tmp_path), config):
        pass
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / f"curves.json.{os.getpid()}.tmp").write_text("{")  # someone evaluates meanwhile
    (tmp_path / "eval" / "curves.json.999999999.tmp").write_text("{")
    with workdir.hold(str(tmp_path), config):
        assert [p.name for p in (tmp_path / "eval").iterdir()] == [f"curves.json.{os.getpid()}.tmp"]


HOSTILE = {"a link in place of a folder": lambda run, there: (run / "checkpoints").symlink_to(there),
           "a link in place of a file": lambda run, there: (run / "metrics.jsonl").symlink_to(there / "file"),
           "a link in a folder": lambda run, there: (run / "eval").mkdir() or (run / "eval" / "x").symlink_to(there),
           "a link that leads nowhere": lambda run, there: (run / "result.json").symlink_to(there / "none"),
           "the lock a link": lambda run, there: (run / ".lock").unlink() or (run / ".lock").symlink_to(there / "file"),
           "a pipe": lambda run, there: os.mkfifo(run / "manifest.json"),
           "the config a pipe": lambda run, there: (run / "config.json").unlink() or os.mkfifo(run / "config.json")}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("program", ["train", "eval", "load"])
def test_a_directory_that_leads_elsewhere_is_refused(tmp_path, config, how, program):
    run, there = tmp_path / "run", tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("x")
    with workdir.hold(str(run), config):
        pass
    HOSTILE[how](run, there)
    calls = {"train": lambda: train.run(config, str(run), quiet=True), "eval": lambda: eval_program.run(str(run)),
             "load": lambda: api.load(str(run))}
    with pytest.raises(ConfigError, match="is a link or a special file"):
        calls[program]()
    assert files(there) == {str(there / "file"): b"x"} and not os.path.exists(there / "none")


def test_a_new_directory_whose_lock_leads_elsewhere_is_refused(tmp_path, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigError, match="is a link or a special file"):
        with workdir.hold(str(tmp_path / "run"), config):
            pass
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_directory_that_is_gone_is_noticed(tmp_path, config, how):
    with workdir.hold(str(tmp_path / "run"), config) as held:
        held.check()
        os.rename(tmp_path / "run", tmp_path / "away")
        if how == "replaced":
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / ".lock").write_text("")
        with pytest.raises(Failure, match="removed or replaced"):
            held.check()


@pytest.mark.parametrize("label", ["/tmp/x", "a/b", "", "a b", "x" * 65])
def test_an_evaluator_s_label_names_no_file_elsewhere(config, label):
    with config.evaluators.unlocked():
        config.evaluators[label] = config.evaluators.curves
    with pytest.raises(ConfigError, match="config.evaluators="):
        experiment_lib.build(config)
