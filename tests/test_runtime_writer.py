"""metrics.jsonl: no wall clock, cut on resume, half-written lines, the progress line."""

import importlib
import importlib.machinery
import importlib.util
import json
import struct
import sys
import types

import numpy as np
import pytest

from metalearn import cli
from metalearn.runtime import writer
from metalearn.runtime.writer import Writer
from metalearn.validate import ConfigError


def lines(path):
    return [json.loads(line) for line in open(path)]


def fill(tmp_path, steps=(2, 4, 6)):
    log = Writer(str(tmp_path), 0, 10, quiet=True)
    for step in steps:
        log.write(step, {"loss": np.float32(1 / 3), "bad": float("nan")})
        log.write_history(step, {"score": step})
    log.close()
    return tmp_path / "metrics.jsonl", tmp_path / "eval" / "history.jsonl"


def test_lines_are_plain_and_the_same_every_time(tmp_path):
    path, history = fill(tmp_path)
    assert lines(path)[0] == {"step": 2, "loss": 0.333333, "bad": None}
    assert lines(history) == [{"step": s, "score": s} for s in (2, 4, 6)]
    (tmp_path / "again").mkdir()
    assert fill(tmp_path / "again")[0].read_bytes() == path.read_bytes()


@pytest.mark.parametrize("start, kept, seen", [(6, (2, 4, 6), (2, 4)), (4, (2, 4), (2,)), (5, (2, 4), (2, 4)),
                                               (0, (), ())])
def test_resuming_cuts_to_the_restored_step(tmp_path, start, kept, seen):
    path, history = fill(tmp_path)
    log = Writer(str(tmp_path), start, 10, quiet=True)
    assert tuple(line["step"] for line in lines(path)) == kept
    # the evaluation at the restored step is made again: a run may have been stopped between saving and evaluating
    assert tuple(line["step"] for line in lines(history)) == seen
    log.write(start + 2, {"loss": 0.0})
    assert lines(path)[-1]["step"] == start + 2


def test_a_half_written_last_line_goes(tmp_path):
    path, _ = fill(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 8, "lo')
    assert [line["step"] for line in writer.read(str(path))] == [2, 4, 6]
    log = Writer(str(tmp_path), 8, 10, quiet=True)
    assert path.read_bytes() == whole
    log.write(10, {"loss": 1.0})
    assert [line["step"] for line in lines(path)] == [2, 4, 6, 10]


@pytest.mark.parametrize("rubbish", [b"\0\0\0\n", b'{"step": 4, "lo\n', b"[1]\n", b'{"loss": 1}\n', b"\xff\xfe\n"])
def test_a_garbled_line_in_the_middle_goes(tmp_path, rubbish):
    path, _ = fill(tmp_path)
    first, _, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + rubbish + last)
    assert [line["step"] for line in writer.read(str(path))] == [2, 6]
    Writer(str(tmp_path), 6, 10, quiet=True)
    assert path.read_bytes() == first + last


def test_tensorboard_files_hold_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX", reason="TensorBoard files are written when tensorboardX is installed")
    from tensorboardX.proto.event_pb2 import Event

    fill(tmp_path)
    (path,) = (tmp_path / "tb").iterdir()
    found, data = {}, path.read_bytes()
    while data:  # a record: its length, a checksum, itself, a checksum
        (size,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12:12 + size]), data[size + 16:]
        found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
    assert found["train/loss", 4] == pytest.approx(1 / 3, abs=1e-5) and found["eval/score", 6] == 6


def test_cutting_keeps_lines_byte_for_byte(tmp_path):
    path, _ = fill(tmp_path)
    before = path.read_bytes()
    Writer(str(tmp_path), 6, 10, quiet=True)
    assert path.read_bytes() == before


def test_read_of_nothing(tmp_path):
    assert writer.read(str(tmp_path / "absent.jsonl")) == []


def test_progress(tmp_path, capsys):
    log = Writer(str(tmp_path), 0, 4)
    log.write(2, {"loss": 1.0})
    assert capsys.readouterr().err == ""  # no terminal: at most every ten seconds, and at the end
    log.write(4, {"loss": 0.25, "accuracy": 0.5})
    out, err = capsys.readouterr()
    assert out == "" and "4/4" in err and "loss 0.250" in err and err.count("\n") == 1
    Writer(str(tmp_path), 0, 4, quiet=True).write(4, {"loss": 1.0})
    assert capsys.readouterr().err == ""


def test_nested_numbers_by_the_path_that_leads_to_each():
    assert cli.flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [4]}) == {"a": 1, "b/c": 2, "b/d/e": 3, "f": [4]}


@pytest.fixture
def wandb(monkeypatch):
    """What a stand-in for the package was told."""
    told = []
    begun = types.SimpleNamespace(log=lambda numbers, step: told.append((step, numbers)),
                                  finish=lambda: told.append("end"))
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = lambda **kw: told.append(kw) or begun
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_weights_and_biases_gets_the_same_numbers(tmp_path, wandb):
    for start in (0, 4):  # a run that goes on is the same one there
        log = Writer(str(tmp_path), start, 10, quiet=True, wandb={"seed": 3})
        log.write(start + 2, {"loss": 0.5, "by": {"a": 1}, "bad": float("nan"), "text": "x"})
        log.write_history(start + 2, {"score": 2})
        log.close()
    first, second = wandb[:4], wandb[4:]
    assert first[1:] == [(2, {"train/loss": 0.5, "train/by/a": 1}), (2, {"eval/score": 2}), "end"]
    assert first[0] == second[0] and first[0]["config"] == {"seed": 3} and first[0]["resume"] == "allow"
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [2, 6]
    Writer(str(tmp_path), 0, 10, quiet=True, wandb={"seed": 4})
    assert wandb[-1]["id"] != first[0]["id"]


def test_without_the_package_or_an_account_it_is_one_line(tmp_path, wandb, monkeypatch):
    def refuse(**kw):
        raise RuntimeError("no\nkey")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(cli.Failure, match=r"\(no key\); WANDB_MODE=offline"):
        Writer(str(tmp_path), 0, 10, wandb={})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"metalearn-jax\[wandb\]"):
        writer.check_wandb()
