"""Records of experiments, `results/<id>.json`: read, and compared with what a run gives.

A record holds what was run (`commands`, as given to `metalearn`, with {out} for the directory), where and
for how long, the `claims` that `metalearn.reproduce` compares with a new run, and the `tables` that documents show.
`docs/fields.py` says each field and checks it; `docs/records.py` makes records, and documents of them.
"""

import glob
import hashlib
import json
import math
import os
from collections.abc import Sequence
from typing import Any

from metalearn.measure import statistics
from metalearn.validate import nearest, require

Record = dict[str, Any]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # of the repository


def load(root: str) -> dict[str, Record]:
    """{id: record} of every `results/*.json` under `root`, by the files' names."""
    names = [os.path.basename(path)[:-5] for path in sorted(glob.glob(os.path.join(root, "results", "*.json")))]
    return {name: json_of(os.path.join(root, "results"), name) for name in names}


def find(records: dict[str, Record], name: str) -> Record:
    """The record called `name`; ConfigError with the nearest name where there is none."""
    require(name in records, "id", name, "must be one of " + ", ".join(records) + nearest(name, records))
    return records[name]


def read(numbers: Any, path: str) -> Any:
    """The entry of a RESULT line at a/b/c; ConfigError names the part that is not there."""
    for part in path.split("/"):
        if isinstance(numbers, list) and part.isdigit() and int(part) < len(numbers):
            numbers = numbers[int(part)]
            continue
        known = numbers if isinstance(numbers, dict) else {}
        require(part in known, "path", path, f"no {part!r} in the result" + nearest(part, known))
        numbers = known[part]
    return numbers


def by_replica(numbers: dict, path: str) -> Any:
    """The entry at `path`; of a run with replicas the list of each one's, unless the path leads to one of them."""
    if path.startswith("replicas/") or not numbers.get("replicas"):
        return read(numbers, path)
    return [read(replica, path) for replica in numbers["replicas"]]


def measured(found: Sequence[Any], scale: float) -> tuple[float, float | None, list | None]:
    """(mean, half of the 95 % interval over seeds, values by seed) of one entry from each of several runs.

    An entry that is a list, or a list of lists, has one value per seed. With a single number there is no interval.
    """
    values = _flat(found)
    require(bool(values), "path", found, "must lead to at least one number")
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        require(number, "path", value, "must lead to a finite number, or to a list of them")
    values = [scale * value for value in values]
    mean, half = statistics.interval(values)
    return (mean, None, None) if len(values) == 1 else (mean, half, values)


def _flat(entry: Any) -> list:
    return [v for part in entry for v in _flat(part)] if isinstance(entry, (list, tuple)) else [entry]


def run_directories(directory: str) -> list[str]:
    """The finished runs in a sweep's directory, or the directory itself."""
    if not is_sweep(directory):
        return [directory]
    return [os.path.join(directory, run["workdir"]) for run in json_of(directory, "sweep")["runs"]]


def config_hash(directories: Sequence[str]) -> str:
    """SHA-256 of the configs that the runs in `directories` saved; where they lie on disk does not count."""
    digest = hashlib.sha256()
    for directory in directories:
        for run in run_directories(directory):
            with open(os.path.join(run, "config.json"), encoding="utf-8") as file:
                digest.update(file.read().replace(os.path.abspath(directory), "{out}").encode())
    return digest.hexdigest()[:16]


def is_sweep(directory: str) -> bool:
    return os.path.isfile(os.path.join(directory, "sweep.json"))


def json_of(directory: str, name: str) -> dict:
    with open(os.path.join(directory, name + ".json"), encoding="utf-8") as file:
        return json.load(file)


def commands(record: Record) -> list[str]:
    """What a person types for this record, one line each."""
    words = [command.replace("{out}", f"runs/{record['id']}") for command in record["commands"]]
    return ["bash launch/local.sh " + w.removeprefix("train ") for w in words]
