"""Configs: loading, overrides, refusals, JSON and back."""

import pytest
from ml_collections import ConfigDict

from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError

SMOKE = "configs/gpicl.py:smoke"


def block():
    return ConfigDict(dict(seed=0, task=dict(ways=5, sets=("a", "b"), dataset="digits"), none=None, on=False,
                           optim=dict(lr=1e-3, groups={}))).lock()


def test_load_applies_overrides_and_locks():
    config = config_lib.load(SMOKE, ["optim.lr=0.5", "task.pca=4", "train.steps=6"])
    assert (config.optim.lr, config.task.pca, config.train.steps) == (0.5, 4, 6)
    with pytest.raises((KeyError, AttributeError)):
        config.optim.learning_rate = 1.0


@pytest.mark.parametrize("spec, words", [
    ("configs/gpicl.py:smok", "smok.*must be one of.*nearest: smoke"),
    ("configs/nothing.py", "no such file"),
    ("configs", "no such file"),
    ("pyproject.toml", "must be a Python file"),
    ("metalearn/types.py", "must define get_config"),
])
def test_load_refuses(spec, words):
    with pytest.raises(ConfigError, match=words):
        config_lib.load(spec)


def test_a_config_that_fails_says_where(tmp_path):
    path = tmp_path / "configs" / "broken.py"
    path.parent.mkdir()
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(ConfigError, match="broken.py: failed to load: ModuleNotFoundError"):
        config_lib.load(str(path))


@pytest.mark.parametrize("spec", ["gpicl:smoke", "configs/gpicl.py:smoke", "gpicl.py:smoke"])
def test_built_in_configs_are_found_by_name_from_anywhere(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    assert config_lib.load(spec).train.steps == 4
    with pytest.raises(ConfigError, match="gpcl: no such file; built in: credit, fewshot, gpicl.*nearest: gpicl"):
        config_lib.load("gpcl:smoke")


def test_a_config_of_ones_own_uses_its_neighbours_and_the_built_in_ones(tmp_path, monkeypatch):
    """In any folder; one of the same name as a built-in comes first."""
    (tmp_path / "sizes.py").write_text("STEPS = 6\n")
    (tmp_path / "gpicl.py").write_text(
        "from configs import fewshot, sizes\n\n\ndef get_config(arg):\n    config = fewshot.get_config(arg)\n"
        "    config.train.steps = sizes.STEPS\n    return config\n")
    monkeypatch.chdir(tmp_path)
    assert config_lib.load("gpicl.py:smoke").train.steps == 6 and config_lib.load("gpicl:smoke").train.steps == 4


def test_an_empty_block_is_filled_by_dotted_fields_and_a_full_one_is_not():
    config = block()
    config_lib.assign(config, "optim.groups", "{'a.lr': (1, 2), 'b': 3}")
    assert config.optim.groups.to_dict() == {"a": {"lr": (1, 2)}, "b": 3} and config.is_locked
    flat = {"a.lr": (1, 2), "b": 3}
    assert config_lib.flatten(config.optim.groups) == flat and config_lib.nested(flat) == config.optim.groups.to_dict()
    for field, text in (("optim.groups", "{'b': 4}"), ("task", "{'ways': 4}")):
        with pytest.raises(ConfigError, match="is a block; set one of its fields"):
            config_lib.assign(config, field, text)
    with pytest.raises(ConfigError, match="optim.groups.*of type dict"):
        config_lib.assign(block(), "optim.groups", "5")


@pytest.mark.parametrize("field, text, value", [
    ("seed", "7", 7), ("optim.lr", "2", 2.0), ("optim.lr", "1e-4", 1e-4), ("task.dataset", "7", "7"),
    ("task.sets", "['c']", ("c",)), ("task.sets", "('c', 'd')", ("c", "d")), ("on", "true", True),
    ("on", "False", False), ("none", "3", 3), ("optim.lr", "nan", None),
])
def test_assign(field, text, value):
    config = block()
    config_lib.assign(config, field, text)
    new = config_lib.flatten(config)[field]
    assert new != new if value is None else new == value and type(new) is type(value)


@pytest.mark.parametrize("field, text, words", [
    ("task.wayz", "3", "config.task.wayz=3: unknown field.*nearest: task.ways"),
    ("ways", "3", "unknown field.*nearest: task.ways"),
    ("task.ways.more", "3", "unknown field"),
    ("task", "3", "is a block; set one of its fields: .*ways"),
    ("seed", "1.5", "must be of type int"),
    ("seed", "True", "must be of type int"),
    ("seed", "", "must be of type int"),
    ("on", "1", "must be of type bool"),
    ("optim.lr", "fast", "must be of type float"),
    ("optim.lr", "True", "must be of type float"),
    ("task.sets", "c", "must be of type tuple"),
])
def test_assign_refuses_and_changes_nothing(field, text, words):
    config = block()
    with pytest.raises(ConfigError, match=words):
        config_lib.assign(config, field, text)
    assert config_lib.flatten(config) == config_lib.flatten(block())


def test_an_override_needs_a_value():
    with pytest.raises(ConfigError, match="--config.field=value"):
        config_lib.load(SMOKE, ["optim.lr"])


def test_json_round_trip():
    config = config_lib.load(SMOKE)
    again = config_lib.from_json(config_lib.to_json(config))
    assert config_lib.flatten(again) == config_lib.flatten(config)
    assert isinstance(again.evaluators.curves.sets, tuple) and config_lib.differences(config, again) == []


def test_differences_name_every_field():
    old, new = block(), block()
    config_lib.assign(new, "task.ways", "3")
    new.unlock()
    new.more = 1
    del new["none"]
    assert config_lib.differences(old, new) == [
        "more: '(absent)' -> 1", "none: None -> '(absent)'", "task.ways: 5 -> 3"]


def test_flatten_keeps_empty_blocks():
    assert len(config_lib.flatten(block())["optim.groups"]) == 0


def test_a_saved_config_from_before_a_field_has_it_at_what_it_was_then():
    config = config_lib.load(SMOKE)
    old = config.to_dict()
    del old["train"]["accumulate"], old["train"]["mesh"], old["task"]["projection"]
    assert config_lib.differences(config, config_lib.from_json(config_lib.to_json(old))) == []
    config = config_lib.load("configs/memnet.py:smoke")
    old = config.to_dict()
    old["learner"]["fast_weights"] = dict(config_lib.GONE[0][3])
    assert config_lib.differences(config, config_lib.from_json(config_lib.to_json(old))) == []
    old["learner"]["fast_weights"]["scope"] = "episodic"  # another learner, which nothing makes any more
    assert len(config_lib.differences(config, config_lib.from_json(config_lib.to_json(old)))) == 6
