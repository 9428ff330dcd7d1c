"""Every config: loads, refuses what it does not know; its smoke stops, goes on and ends in the same bits."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from metalearn import lookup, sweep, train
from metalearn.runtime import config as config_lib, experiment
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import SECTIONS
from metalearn.validate import ConfigError

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "common"))


def variants(path) -> list[str]:
    """What the config's argument may be: its own refusal of anything else lists them."""
    with pytest.raises(ConfigError) as refused:
        config_lib.import_file(str(path)).get_config("no_such_variant")
    return re.findall(r"[\w.]+", refused.value.allowed.partition("must be one of")[2].partition("(nearest")[0])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_variant_loads_and_smoke_is_among_them(path):
    names = variants(path)
    assert "smoke" in names
    for name in names:
        config = config_lib.load(f"{path}:{name}")
        assert set(SECTIONS) <= set(config.keys()), name
        assert config_lib.differences(config, config_lib.from_json(config_lib.to_json(config))) == []


def sweeps(path) -> list[str]:
    """The arguments of the config's sweep(): its own refusal of anything else lists them."""
    module = config_lib.import_file(str(path))
    with pytest.raises(ConfigError) as refused:
        list(module.sweep("no_such_sweep"))
    return re.findall(r"\w+", refused.value.allowed.partition("must be one of")[2].partition("(nearest")[0])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_combination_of_a_sweep_loads(path):
    module = config_lib.import_file(str(path))
    if not hasattr(module, "sweep"):
        pytest.skip(f"{path.name} has no sweep()")
    assert len(sweep.expand(f"{path}:", "out")) > 0
    for arg in sweeps(path):
        assert len(sweep.expand(f"{path}:{arg}", "out")) > 0
        summary = module.SUMMARY if isinstance(module.SUMMARY, str) else module.SUMMARY[arg]
        assert callable(sweep.summariser(summary)), summary


@pytest.mark.parametrize("path", [  # the published settings of Meta-DT run what its own smoke runs
    pytest.param(p, marks=[pytest.mark.slow] * p.stem.endswith("_paper"), id=p.stem) for p in FILES])
def test_smoke_stopped_and_resumed_ends_in_the_same_bits(path, tmp_path, monkeypatch, compiled_once):
    config = config_lib.load(f"{path}:smoke")
    assert config.train.steps > config.train.save_every, "the smoke must save at least once on the way"
    train.run(config, str(tmp_path / "whole"), quiet=True)

    save = Checkpoints.save

    def save_then_die(self, *args, **kw):
        save(self, *args, **kw)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, str(tmp_path / "parts"), quiet=True)
    monkeypatch.setattr(Checkpoints, "save", save)
    assert Checkpoints(str(tmp_path / "parts" / "checkpoints")).steps() == [config.train.save_every]
    train.run(config, str(tmp_path / "parts"), quiet=True)

    leaves = [Checkpoints(str(tmp_path / run / "checkpoints")).meta()["leaves"] for run in ("whole", "parts")]
    assert leaves[0] == leaves[1], "the final states differ"
    lines = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "parts")]
    assert lines[0] == lines[1]
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("whole", "parts")]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]


def test_a_learner_that_stays_on_a_batch_is_not_given_parts_of_it():
    config = config_lib.load(f"{ROOT}/configs/memnet.py:smoke", ["train.accumulate=2"])
    with pytest.raises(ConfigError, match="config.train.accumulate=2: must be 1: this learner keeps a state"):
        experiment.build(config)


def test_one_word_swaps_a_network_a_learner_or_a_backbone():
    words = config_lib.load(f"{ROOT}/configs/gpicl.py:smoke,network=ntm")
    assert words.learner.network.name == "ntm" and words.learner.layout == "previous_example"
    assert config_lib.load(f"{ROOT}/configs/gpicl.py:network=vsml,smoke").learner.layout == "shifted"
    plain = config_lib.load(f"{ROOT}/configs/gpicl.py:smoke")
    assert config_lib.load(f"{ROOT}/configs/gpicl.py:digits,network=transformer").learner.layout == "query"
    assert config_lib.load(f"{ROOT}/configs/gpicl.py:smoke,learner=incontext") == plain
    assert config_lib.load(f"{ROOT}/configs/gpicl.py:smoke,learner=maml").learner.meta is True
    few = config_lib.load(f"{ROOT}/configs/fewshot.py:smoke,learner=maml,backbone=mlp")
    assert (few.learner.name, few.learner.backbone.name) == ("maml", "mlp")
    few = config_lib.load(f"{ROOT}/configs/fewshot.py:smoke,embedded_transformer,network=ntm")
    assert (few.learner.name, few.learner.network.name) == ("embedded_transformer", "ntm")
    assert config_lib.load(f"{ROOT}/configs/memnet.py:smoke,network=lstm").learner.network.name == "lstm"


@pytest.mark.parametrize("spec, text", [
    ("gpicl.py:smoke,network=ntn", "ntn: must be one of .*nearest: ntm"),
    ("gpicl.py:smoke,netwrk=ntm", "netwrk=ntm: unknown word; .*nearest: network"),
    ("gpicl.py:smoke,network=", "must be one of transformer"), ("gpicl.py:smoke,network=gated", "must be one of"),
    ("gpicl.py:smoke,learner=sgd,network=ntm", "learner=sgd takes no network"),
    ("fewshot.py:smoke,maml,network=ntm", "learner=maml takes no network"),
    ("gpicl.py:smok,network=ntm", "smok: .*nearest: smoke"), ("fewshot.py:smoke,backbone=conv", "nearest: conv4")])
def test_words_that_are_not_known_are_refused_with_the_nearest(spec, text):
    with pytest.raises(ConfigError, match=text):
        config_lib.load(f"{ROOT}/configs/{spec}")


def test_every_network_and_backbone_has_its_default_sizes():
    from configs import common
    assert sorted(common.NETWORKS) == lookup.names("networks") and sorted(common.BACKBONES) == lookup.names("backbones")
    assert all(sizes["name"] == name for table in (common.NETWORKS, common.BACKBONES) for name, sizes in table.items())
