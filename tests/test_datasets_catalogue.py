"""catalogue.json is complete and consistent with the reader that is checked against it."""

import re

import numpy as np
import pytest

from metalearn.datasets import catalogue


@pytest.mark.parametrize("name", catalogue.entries())
def test_entries(name):
    facts = catalogue.entries()[name]
    assert facts["builder"] in ("tfds", "own") and facts["licence"] and facts["home"].startswith("http")
    assert facts["files"] and facts["values_from"] and facts["values"]["examples"] > 0
    for files in facts["files"]:
        for file, want in files.items():
            assert "/" not in file and want["bytes"] > 0 and re.fullmatch("[0-9a-f]{64}", want["sha256"]), file
    if "per_class" in facts["values"]:
        per_class = facts["values"]["per_class"]
        unnamed = {"cifar_fs": 100, "cifar100": 100, "omniglot": 1623}.get(name, 10)
        classes = len(facts.get("class_names", [])) or unnamed
        total = sum(per_class) if isinstance(per_class, list) else per_class * classes
        assert total == facts["values"]["examples"]


def test_names_with_a_slash():
    assert catalogue.canonical("emnist_letters") == catalogue.canonical("emnist/letters") == "emnist/letters"
    assert catalogue.canonical("mine") == "mine"


def test_values(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (5000, 2, 2, 1), dtype=np.uint8), np.arange(5000) % 4
    values = catalogue.values_of(x, y, np.arange(5000) > 3999)
    assert abs(values["mean"] - x.mean()) < 1e-4 and abs(values["std"] - x.std()) < 1e-4
    assert (values["examples"], values["test_examples"], values["per_class"]) == (5000, 1000, 1250)
    monkeypatch.setitem(catalogue.entries(), "x", {"values": values})
    assert catalogue.unlike("x", values) == ""
    assert "mean is" in catalogue.unlike("x", catalogue.values_of(255 - x // 2, y, None))
    assert catalogue.unlike("x",
                            catalogue.values_of(x, np.minimum(y, 2), np.arange(5000) > 3999)).startswith("per_class")


def test_roots(monkeypatch, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "p"))
    assert catalogue.data_root() == str(tmp_path) and catalogue.prepared_root() == str(tmp_path / "p")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert catalogue.prepared_root().endswith("tensorflow_datasets") and "~" not in catalogue.prepared_root()
