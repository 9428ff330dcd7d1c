"""What is known of each dataset beforehand: files and hashes, values it must have, class splits, folders."""

import functools
import hashlib
import json
import os
from typing import Any

import numpy as np

from metalearn.validate import require

HERE = os.path.dirname(os.path.abspath(__file__))


def data_root() -> str:
    """Where raw files lie: METALEARN_DATA, else ../shared/data when it exists, else ''."""
    default = os.path.abspath(os.path.join(HERE, "..", "..", "..", "shared", "data"))
    return os.environ.get("METALEARN_DATA", default if os.path.isdir(default) else "")


def prepared_root() -> str:
    """Where prepared sets lie: TFDS_DATA_DIR, else TFDS's own default."""
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets"))


@functools.cache
def entries() -> dict[str, Any]:
    """catalogue.json: of each dataset its files with hashes, licence, origin, and the values it is checked against."""
    with open(os.path.join(HERE, "catalogue.json"), encoding="utf-8") as file:
        return json.load(file)


def canonical(name: str) -> str:
    """The name under which a dataset is known: emnist_letters is emnist/letters."""
    return next((key for key in entries() if name.replace("/", "_") == key.replace("/", "_")), name)


def raw_folder(name: str, root: str) -> str:
    """Where `root` holds the raw files of a dataset, '' where there is no such root."""
    return os.path.join(root, entries().get(name, {}).get("folder", name.replace("/", "_"))) if root else ""


@functools.cache
def class_split(name: str) -> dict[str, Any] | None:
    """The committed class split of a dataset, its hash verified; None where it has none."""
    file_name = entries().get(canonical(name), {}).get("split")
    if file_name is None:
        return None
    with open(os.path.join(HERE, "splits", file_name), encoding="utf-8") as file:
        split = json.load(file)
    digest = hashlib.sha256(json.dumps(split["classes"], sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    require(digest == entries()[canonical(name)]["split_sha256"], "dataset", name,
            f"its class split {file_name} has been changed (sha256 {digest[:16]}): restore the committed file")
    return split | {"sha256": digest}


def values_of(x: np.ndarray, y: np.ndarray, test: np.ndarray | None) -> dict[str, Any]:
    """What a dataset is checked by: mean and std of all its values, examples, and examples per class."""
    total, square, n = 0.0, 0.0, 0
    for i in range(0, len(x), 4096):
        part = x[i:i + 4096].astype(np.float64)
        total, square, n = total + part.sum(), square + (part**2).sum(), n + part.size
    mean, count = total / n, np.bincount(y).tolist()
    return {"mean": round(float(mean), 4), "std": round(float(max(square / n - mean**2, 0.0) ** 0.5), 4),
            "examples": len(y), "test_examples": 0 if test is None else int(test.sum()),
            "per_class": count[0] if len(set(count)) == 1 else count}


def unlike(name: str, got: dict[str, Any], part: bool = False) -> str:
    """'' or what differs from the committed values of `name`, or of the commonly shared part of it, in words."""
    facts = entries().get(name, {})
    expected, tolerance = facts.get("values", {}), facts.get("tolerance", 2e-4)
    if part:  # those were measured
        expected, tolerance = facts.get("values_part", {}), 2e-4
    near = lambda k: abs(got[k] - expected[k]) <= tolerance * max(abs(expected[k]), 0.5)
    wrong = [k for k in expected if not (near(k) if k in ("mean", "std") else got[k] == expected[k])]
    return "; ".join(f"{k} is {got[k]}, must be {expected[k]}" for k in wrong)
