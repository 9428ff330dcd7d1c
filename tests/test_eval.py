"""Evaluating a checkpoint gives the numbers that training printed; a dataset never trained on goes in by one flag."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metalearn import eval as eval_program
from metalearn import train
from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("eval") / "run"
    overrides = ["evaluators.curves.sets=('unseen', 'new')"]
    return workdir, train.run(config_lib.load("configs/gpicl.py:smoke", overrides), str(workdir), quiet=True)


def test_the_very_numbers_of_training(run):
    workdir, printed = run
    before = json.loads((workdir / "eval" / "curves.json").read_text())
    again = eval_program.run(str(workdir))
    assert again.pop("step") == 4
    assert again == {k: v for k, v in printed.items() if k != "seconds"}
    assert json.loads((workdir / "eval" / "curves.json").read_text()) == before


def test_an_earlier_checkpoint_gives_other_numbers(run):
    workdir, printed = run
    earlier = eval_program.run(str(workdir), step=2)
    assert earlier["step"] == 2 and earlier["episodes_sha256"] == printed["episodes_sha256"]
    differ = [k for k in printed if k.endswith(("_last", "_first")) and earlier[k] != printed[k]]
    assert differ, "the same episodes, other parameters"
    with pytest.raises(ConfigError, match="--step"):
        eval_program.run(str(workdir), step=3)


def test_a_dataset_never_trained_on(run, tmp_path):
    workdir, printed = run
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (60, 11, 13, 3), dtype=np.uint8)  # another size, and colours
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(60) % 6)
    overrides = {"task.new_dataset": str(tmp_path / "mine.npz")}
    result = eval_program.run(str(workdir), overrides, suffix="@mine")
    assert result["new_dataset"].endswith("mine.npz")
    assert result["unseen_last"] == printed["unseen_last"], "the other sets stay as they were"
    assert (workdir / "eval" / "curves@mine.json").exists()
    np.savez(tmp_path / "few.npz", x=x, y=np.arange(60) % 3)
    with pytest.raises(ConfigError, match="ways"):
        eval_program.run(str(workdir), {"task.new_dataset": str(tmp_path / "few.npz")})
