"""The PyTorch arm: optional, says so in one line when torch is absent, and learns its one batch when it is there."""

from __future__ import annotations

import importlib.util

import pytest

from metalearn.measure import torch_reference
from metalearn.runtime import config as config_lib, experiment as experiment_lib


def test_who_has_an_arm(monkeypatch):
    found = {"torch": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found[name])
    lacks = lambda arg, *changes: torch_reference.lacks(config_lib.load(arg, changes))
    assert lacks("configs/fewshot.py:smoke,maml") == "PyTorch is not installed: its arm is left out"
    assert lacks("configs/gpicl.py:smoke") is None and lacks("configs/fewshot.py:smoke,anil") is None
    assert lacks("configs/fewshot.py:smoke,maml", "learner.backbone.norm=layer") is None
    found["torch"] = "there"
    assert lacks("configs/fewshot.py:smoke,protonet") == ""


@pytest.mark.parametrize("name", ["maml", "protonet"])
def test_it_learns(name):
    pytest.importorskip("torch")
    config = config_lib.load(f"configs/fewshot.py:smoke,{name}", ["optim.lr=0.01"])
    update = torch_reference.make(config, experiment_lib.build(config).task.spec)
    losses = [update() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
