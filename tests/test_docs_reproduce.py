"""A stored result is run again and compared, end to end."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from test_docs_results import CLAIM, changed

from docs import records, reproduce

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("better, value, expected", [
    ("higher", 60.0, "reproduced"), ("higher", 62.0, "reproduced"), ("higher", 62.1, "better"),
    ("higher", 57.9, "not"), ("lower", 57.9, "better"), ("lower", 62.1, "not")])
def test_verdicts(better, value, expected):
    assert reproduce.verdict(CLAIM | dict(better=better), value) == expected


def test_a_record_is_run_again_and_compared(tmp_path):
    """The few-shot smoke: one claim that holds, one that is better, one that is not."""
    claims = [CLAIM | dict(name="accuracy", value=50.0, tolerance=50.0),
              CLAIM | dict(name="parameters", path="parameters", scale=1, value=1, tolerance=0),
              CLAIM | dict(name="ways", path="state_size", scale=1, value=1e6, tolerance=1)]
    records.save(str(tmp_path), changed(claims=claims, tables=[], seconds=7))
    call = lambda name: subprocess.run(
        [sys.executable, "-m", "metalearn", "reproduce", name, f"--root={tmp_path}", f"--out={tmp_path}/out"],
        capture_output=True, text=True, check=False, cwd=ROOT)
    done = call("tiny")
    assert done.returncode == 1, done.stderr
    assert "expected time: 7 s" in done.stdout.split("RESULT")[0]
    found = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("RESULT "))
    assert found["verdict"] == "not"
    assert {k: c["verdict"] for k, c in found["claims"].items()} == {
        "accuracy": "reproduced", "parameters": "better", "ways": "not"}
    assert (tmp_path / "out" / "result.json").is_file()

    refused = call("tony")
    assert refused.returncode == 2 and "nearest: tiny" in refused.stderr


def test_a_command_that_fails_says_so(tmp_path, capsys):
    record = changed(commands=["train --config=configs/fewshot.py:nonsense --workdir={out}"])
    assert reproduce.run(record, str(tmp_path / "out")) == (2, {})
    assert "exit code 2" in capsys.readouterr().err
