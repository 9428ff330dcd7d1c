"""Evaluating a checkpoint gives the numbers that training printed; a dataset never trained on goes in by one flag."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from metalearn import api, eval as eval_program, train
from metalearn.rl import store
from metalearn.runtime import config as config_lib, experiment as experiment_lib
from metalearn.validate import ConfigError

pytestmark = pytest.mark.usefixtures("data_only")


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
    assert earlier["step"] == 2
    before, after = earlier["curves"], printed["curves"]
    assert before["episodes_sha256"] == after["episodes_sha256"]
    differ = [k for k in after if k.endswith(("_last", "_first")) and before[k] != after[k]]
    assert differ, "the same episodes, other parameters"
    own, other = (json.loads((workdir / "eval" / f"curves{which}.json").read_text()) for which in ("", "@step=2"))
    assert own["headline"] == after and own["evaluated"] == {"step": 4, "changed": []}
    assert other["headline"] == before and other["evaluated"] == {"step": 2, "changed": []}
    with pytest.raises(ConfigError, match="--step"):
        eval_program.run(str(workdir), step=3)


def test_a_dataset_never_trained_on(run, tmp_path):
    workdir, printed = run
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (60, 11, 13, 3), dtype=np.uint8)  # another size, and colours
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(60) % 6)
    overrides = {"task.new_dataset": str(tmp_path / "mine.npz")}
    result = eval_program.run(str(workdir), overrides)
    assert result["curves"]["new_dataset"].endswith("mine.npz")
    assert result["curves"]["unseen_last"] == printed["curves"]["unseen_last"], "the other sets stay as they were"
    assert len(list((workdir / "eval").glob("curves@task.new_dataset=mine-*.json"))) == 1
    own = (workdir / "eval" / "curves.json").read_bytes()
    for place in ("a", "b"):  # two of one name, and none of them replaces training's own
        (tmp_path / place).mkdir()
        np.savez(tmp_path / place / "mine.npz", x=x, y=(np.arange(60) + (place == "b")) % 6)
        eval_program.run(str(workdir), {"task.new_dataset": str(tmp_path / place / "mine.npz")})
    assert len(list((workdir / "eval").glob("curves@task.new_dataset=mine-*.json"))) == 2
    assert (workdir / "eval" / "curves.json").read_bytes() == own
    np.savez(tmp_path / "few.npz", x=x, y=np.arange(60) % 3)
    with pytest.raises(ConfigError, match="ways"):
        eval_program.run(str(workdir), {"task.new_dataset": str(tmp_path / "few.npz")})


class Planted:
    def __reduce__(self):
        return pytest.fail, ("what a file says was run",)


def test_a_file_that_holds_code_is_refused_and_the_code_is_not_run(run, tmp_path):
    np.savez(tmp_path / "planted.npz", x=np.array([Planted()] * 60), y=np.arange(60) % 6)
    with pytest.raises(AssertionError, match="unpickles"):
        np.load(tmp_path / "planted.npz", allow_pickle=True)["x"]
    with pytest.raises(ConfigError, match="planted.npz"):
        eval_program.run(str(run[0]), {"task.new_dataset": str(tmp_path / "planted.npz")})
    with pytest.raises(ConfigError, match="planted.npz"):
        store.load(str(tmp_path / "planted.npz"))


def test_the_asked_dataset_alone_is_evaluated_and_named(run, tmp_path):
    """A folder of pictures of two sizes; what was not asked for is not computed again."""
    from PIL import Image

    workdir, _ = run
    rng = np.random.default_rng(0)
    for i in range(60):
        (tmp_path / "pics" / "abcdef"[i % 6]).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (9 + i % 2, 9), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pics" / "abcdef"[i % 6] / f"{i}.png")
    result = eval_program.run(str(workdir), dataset=str(tmp_path / "pics"))
    assert "pool_pics_last" in result["curves"] and "unseen_last" not in result["curves"]
    saved = json.loads((workdir / "eval" / "curves@dataset=pics.json").read_text())
    assert [row[0] for row in saved["tables"][0]["rows"]] == ["pool:pics"]
    with pytest.raises(ConfigError, match="nowhere"):
        eval_program.run(str(workdir), dataset="nowhere")


def test_names_of_evaluations_that_differ():
    assert eval_program._suffix({}) == ""
    wanted = "@evaluators.curves.episodes=64,seed=3"
    assert eval_program._suffix({"seed": 3, "evaluators.curves.episodes": 64}) == wanted
    names = [eval_program._suffix({"task.sets": value}) for value in ("a/b", "a b", "a-b", "x" * 300, "x" * 301)]
    assert len(set(names)) == 5 and all(re.fullmatch(r"@[A-Za-z0-9._=,-]{1,99}", name) for name in names)


def test_evaluators_do_not_overwrite_each_other_s_numbers(run):
    """Two of one kind, as few-shot and demonstration are: each under its own label."""
    config = config_lib.load("configs/gpicl.py:smoke", ["evaluators.curves.sets=('unseen',)"])
    with config.evaluators.unlocked():
        config.evaluators.again = config.evaluators.curves.to_dict() | {"seed": 2}
    trained = api.load(str(run[0]))
    found = eval_program.headlines(experiment_lib.build(config), trained.params, trained.carry)
    assert found.keys() == {"curves", "again"}
    assert found["curves"]["episodes_sha256"] != found["again"]["episodes_sha256"]


def test_a_label_that_a_run_s_own_number_has_is_refused():
    config = config_lib.load("configs/gpicl.py:smoke")
    with config.evaluators.unlocked():
        config.evaluators.seconds = config.evaluators.curves
    with pytest.raises(ConfigError, match="evaluators.seconds"):
        experiment_lib.build(config)
