"""A folder listing is the registry."""

import os

import pytest

import metalearn
from metalearn import lookup
from metalearn.validate import ConfigError


@pytest.mark.parametrize("kind", lookup.KINDS)
def test_names_are_the_files(kind):
    folder = os.path.join(os.path.dirname(metalearn.__file__), kind)
    files = sorted(f[:-3] for f in os.listdir(folder) if f.endswith(".py") and not f.startswith("_"))
    assert lookup.names(kind) == files and files


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
