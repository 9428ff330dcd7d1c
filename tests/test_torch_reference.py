"""The PyTorch arm: optional, says so in one line when torch is absent; else it computes our loss and gradient."""

from __future__ import annotations

import importlib.util

import pytest
import torch_reference

from metalearn import cli
from metalearn.runtime import config as config_lib
from tests import benchmark


def test_who_has_an_arm(monkeypatch):
    found = {"torch": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found[name])
    lacks = lambda arg, *changes: torch_reference.lacks(config_lib.load(arg, changes))
    assert lacks("configs/fewshot.py:smoke,maml") == "PyTorch is not installed: its arm is left out"
    assert lacks("configs/gpicl.py:smoke,network=lstm") is None and lacks("configs/fewshot.py:smoke,anil") is None
    assert lacks("configs/fewshot.py:smoke,maml", "learner.backbone.norm=layer") is None
    found["torch"] = "there"
    assert lacks("configs/fewshot.py:smoke,protonet") == ""


def _measure(monkeypatch, spec: str, *overrides: str) -> dict:
    """A row whose timing is one call of each arm that is not compiled."""
    eager = lambda runs, rounds: {name: [run() or 1.0] for name, run in runs.items() if "compile" not in name}
    monkeypatch.setattr(benchmark, "_rounds", eager)
    monkeypatch.setattr(benchmark, "_matmul", lambda size: (lambda: None, 1.0))
    return benchmark.measure(spec, list(overrides), rounds=1)


PLAIN = "optim.warmup_steps=0"


@pytest.mark.parametrize("spec, overrides", [
    ("configs/fewshot.py:smoke,maml", ()), ("configs/fewshot.py:smoke,protonet", ()),
    ("configs/gpicl.py:smoke", (PLAIN,)),
    ("configs/gpicl.py:smoke", (PLAIN, "learner.layout=shifted", "learner.network.positions=True")),
    ("configs/memnet.py:digits_stream,network=ntm", (PLAIN, "train.batch=2", "learner.network.slots=4")),
    ("configs/memnet.py:digits_stream,network=lrua", (PLAIN, "train.batch=2", "learner.network.slots=8")),
    ("configs/memnet.py:cost_lstm", (PLAIN, "task.length=8", "learner.segment=3", "train.batch=4")),
    ("configs/metadt.py:point_world", (PLAIN, "task.train_tasks=6", "task.test_tasks=3", "task.episodes=10",
                                       "train.batch=4")),
    ("configs/metadt.py:smoke", (PLAIN, "learner.world_training=frozen", "learner.head=mse", "learner.dropout=0.1")),
])
def test_its_loss_and_gradient_are_ours(monkeypatch, spec, overrides):
    pytest.importorskip("torch")
    row = _measure(monkeypatch, spec, *overrides)
    assert row["torch_loss"] == pytest.approx(row["loss"], rel=1e-4)
    assert row["torch_grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)
    assert set(row["torch_ms"]) == {"eager 1", "eager 2"}


def test_another_update_is_not_timed(monkeypatch):
    pytest.importorskip("torch")
    right = torch_reference.Reference.check
    monkeypatch.setattr(torch_reference.Reference, "check", lambda self: (right(self)[0], 1.01 * right(self)[1]))
    with pytest.raises(cli.Failure, match="gradient norm"):
        _measure(monkeypatch, "configs/fewshot.py:smoke,protonet")
