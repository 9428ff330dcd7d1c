"""A folder listing is the registry."""

import os

import pytest

import metalearn
import metalearn.tasks
from metalearn import lookup
from metalearn.validate import ConfigError


@pytest.mark.parametrize("kind", lookup.KINDS)
def test_names_are_the_files(kind):
    package = os.path.dirname(metalearn.__file__)
    folders = [f for f in (os.path.join(root, kind) for root in (package, lookup.CONFIGS)) if os.path.isdir(f)]
    files = sorted(f[:-3] for folder in folders for f in os.listdir(folder) if f.endswith(".py") and f[0] != "_")
    assert lookup.names(kind) == files and files


def test_folders_of_ones_own_hold_entries(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.py").write_text('"""My task."""\n\ndef make(*, size: int):\n    return size + 1\n')
    monkeypatch.setattr(metalearn.tasks, "__path__", [*metalearn.tasks.__path__])
    assert "mine" not in lookup.names("tasks")
    monkeypatch.setenv("METALEARN_PATH", f"{tmp_path}")
    assert "mine" in lookup.names("tasks") and lookup.build("tasks", "mine", size=1) == 2
    with pytest.raises(ConfigError, match="size='x'|size=x"):
        lookup.build("tasks", "mine", size="x")
    monkeypatch.setenv("METALEARN_PATH", f"{tmp_path}{os.pathsep}{tmp_path}/nowhere")
    with pytest.raises(ConfigError, match="METALEARN_PATH=.*nowhere: no such folder"):
        lookup.names("tasks")


@pytest.mark.parametrize("kind", lookup.KINDS)
def test_every_entry_has_a_documented_make(kind):
    for name in lookup.names(kind):
        module = lookup.module(kind, name)
        assert module.__doc__ and callable(module.make), name


def test_unknown_name_lists_and_hints():
    with pytest.raises(ConfigError, match=r"name=projectd: one of .*projected.*\(nearest: projected\)"):
        lookup.build("tasks", "projectd")


@pytest.mark.parametrize("name", ["../tasks/copy", "__init__", "copy.make", ""])
def test_only_plain_entries_are_reached(name):
    with pytest.raises(ConfigError):
        lookup.module("tasks", name)


def test_build_checks_the_keywords():
    with pytest.raises(ConfigError, match="lenght.*nearest: length"):
        lookup.build("tasks", "projected", lenght=3)
