"""`metalearn list`: the folders and the catalogue, and an entry's fields as its signature says them."""

import inspect
import sys

import pytest

from metalearn import listing, lookup
from metalearn.validate import ConfigError


def shown(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["list", *argv])
    assert listing.main() == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", listing.KINDS)
def test_every_entry_is_listed_with_a_line(monkeypatch, capsys, kind):
    found = listing.entries(kind)
    assert found and all(doc.strip() for doc in found.values()), "an entry without a docstring"
    out = shown(monkeypatch, capsys, kind)
    assert all(f"  {name} " in out for name in found) and max(map(len, out.splitlines())) <= 80


def test_an_entry_is_shown_with_its_fields(monkeypatch, capsys):
    out = shown(monkeypatch, capsys, "learners", "maml")
    keywords = list(inspect.signature(lookup.module("learners", "maml").make).parameters)[1:]
    assert all(f"\n  {name}: " in out for name in keywords) and "gradient steps on the support" in out
    assert "TASK[,LEARNER]" in shown(monkeypatch, capsys, "configs", "fewshot")
    assert "MIT" in shown(monkeypatch, capsys, "datasets", "omniglot")
    assert "mind:" in shown(monkeypatch, capsys, "datasets")
    assert "learners" in shown(monkeypatch, capsys)


@pytest.mark.parametrize("argv, words", [(("learner",), "nearest: learners"), (("tasks", "copi"), "nearest: copy")])
def test_unknown_names_are_refused(monkeypatch, argv, words):
    monkeypatch.setattr(sys, "argv", ["list", *argv])
    with pytest.raises(ConfigError, match=words):
        listing.main()
