"""One process at a time holds a work directory, and one config owns it."""

import json
import os
import subprocess
import sys

import pytest

from metalearn.runtime import config as config_lib
from metalearn.runtime import workdir
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
    assert workdir.check(str(path), config) and not path.exists()
    with workdir.hold(str(path), config) as held:
        assert held == str(path) and config_lib.differences(workdir.read_config(held), config) == []
        assert f"pid {os.getpid()} " in (path / ".lock").read_text()
    assert not workdir.check(str(path), config)
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
    assert workdir.check(str(tmp_path), config)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "\xff"])
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


def test_manifest_says_what_ran_and_nothing_private(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("A_SECRET", "hush")
    facts = workdir.manifest("cpu", 1)
    text = json.dumps(facts)
    assert facts["versions"]["jax"] and facts["num_devices"] == 1 and "hush" not in text and "somebody" not in text


def test_manifest_knows_the_revision_wherever_there_is_one():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    assert (workdir.manifest("cpu", 1)["git"] != "unknown") == os.path.exists(os.path.join(root, ".git"))
