"""The command line: list, check, prepare; one line and exit code 2 for bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest

from metalearn import cli
from metalearn.datasets import __main__ as program
from metalearn.validate import ConfigError
from tests.test_datasets_sources import GOLDEN


def run(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["datasets", *argv])
    code = program.main()
    return code, capsys.readouterr().out


def test_check(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", GOLDEN)
    code, out = run(monkeypatch, capsys, "check")
    result = json.loads(out.splitlines()[-1].removeprefix("RESULT "))
    assert code == 0 and "mnist" in result["missing"] and result["ready"] == []
    code, out = run(monkeypatch, capsys, "check", "mnist")
    assert code == cli.EXIT_CONFIG and "train-images-idx3-ubyte.gz" in out and "prepare mnist" in out
    assert str(tmp_path) in out and "9,912,422 bytes" in out and "https://" in out
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"<html>")
    code, out = run(monkeypatch, capsys, "check", "mnist")
    assert code == cli.EXIT_CONFIG and "BROKEN" in out and "web page" in out
    assert run(monkeypatch, capsys, "check", "images/tiny")[0] == 0


def test_check_of_what_needs_no_preparing(monkeypatch, capsys, tmp_path):
    assert "1,797 images" in run(monkeypatch, capsys, "check", "digits")[1]
    np.savez(tmp_path / "mine.npz", x=np.arange(96).reshape(6, 4, 4), y=np.array(["cat", "dog", "cow"] * 2))
    code, out = run(monkeypatch, capsys, "check", str(tmp_path / "mine.npz"))
    assert code == 0 and "your own:  6 images of (4, 4, 1), 3 classes" in out
    with pytest.raises(ConfigError, match="nearest: omniglot"):
        run(monkeypatch, capsys, "check", "omniglt")


def test_prepare_what_is_prepared(monkeypatch, capsys, tmp_path):
    code, out = run(monkeypatch, capsys, "prepare", "images/tiny", f"--raw={tmp_path}", f"--data_dir={GOLDEN}")
    assert code == 0 and json.loads(out.splitlines()[-1].removeprefix("RESULT "))["examples"] == 126


@pytest.mark.parametrize("argv", [["prepar", "mnist"], ["prepare"], ["prepare", "mnist", "--raw=/nowhere"],
                                  ["prepare", "mnist", "--rwa=x"], ["prepare", "mnist", "--image_size=big"]])
def test_bad_commands(monkeypatch, capsys, argv):
    with pytest.raises(ConfigError):
        run(monkeypatch, capsys, *argv)


def test_exit_code_and_one_line():
    done = subprocess.run([sys.executable, "-m", "metalearn.datasets", "prepare", "../x"], capture_output=True,
                          text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
