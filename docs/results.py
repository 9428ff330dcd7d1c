"""Records of experiments, `results/<id>.json`, read and checked; `docs/records.py` makes them, and documents of them.

A record holds what was run (`commands`, as given to `python -m metalearn.`, with {out} for the directory), where and
for how long, the `claims` that `metalearn.reproduce` compares with a new run, and the `tables` that documents show.

Fields of a record (null: not known):

  id, family, title   the file's name; the config file's name; one line
  provenance          "made": written by `record` from runs; "imported": typed numbers of earlier commits
  commands            ["train --config=... --workdir={out}", ...]; the RESULT line of the last one is compared
  config_sha256       of the configs that the runs saved (`config_hash`)
  git, episodes_sha256, seeds, seconds, machine       of the runs; seconds are summed over runs, null where not known
  claims              [{name, path, scale, value, interval, over, interval_from, per_seed, digits, better, tolerance,
                        published}]
  tables              [{title, digits, columns, rows}]; a cell is text, a number, [mean, half of its interval] or null
  notes               what a reader must know before quoting a number

Fields of a claim: `path` is the keys of the RESULT line joined by "/" (an integer indexes a list), whose number is
multiplied by `scale` (100 for per cent); `over` says what the 95 % interval is over (episodes, tasks, seeds), and
`interval_from` is {path, over} of the one that a single run has, or null; `better` is "higher" or "lower"; `published`
is {value, source, grade}, the grade of evidence being one of GRADES, or null.
"""

import glob
import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from metalearn.measure import statistics
from metalearn.validate import fields, nearest, one_of, require, within

Record = dict[str, Any]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # of the repository

GRADES = {
    "X": "exact from the source named", "Q": "quoted by others", "M": "from memory, not checked",
    "R": "read off a figure", "D": "derived by arithmetic", "C": "read in official code",
}
NUMBER = (int, float)
RECORD = {"id": str, "family": str, "title": str, "provenance": str, "commands": list, "config_sha256": str,
          "git": str, "episodes_sha256": list, "seeds": list, "seconds": NUMBER, "machine": str, "claims": list,
          "tables": list, "notes": list}
CLAIM = {"name": str, "path": str, "scale": NUMBER, "value": NUMBER, "interval": NUMBER, "over": str,
         "interval_from": dict, "per_seed": list, "digits": int, "better": str, "tolerance": NUMBER, "published": dict}
TABLE = {"title": str, "digits": int, "columns": list, "rows": list}
SOURCE = {"path": str, "over": str}
PUBLISHED = {"value": NUMBER, "source": str, "grade": str}
NULLABLE = ("config_sha256", "git", "episodes_sha256", "seeds", "seconds", "machine", "interval", "over",
            "interval_from", "per_seed", "published")


def check(record: Record) -> Record:
    """The record itself; ConfigError names the first field that is missing, unknown, mistyped or inconsistent."""
    with within(f"results/{record.get('id', '?')}.json"):
        _fields(record, RECORD)
        require(bool(re.fullmatch(r"[a-z0-9_]+", record["id"])), "id", record["id"], "lower case, digits and _")
        one_of(("made", "imported"), provenance=record["provenance"])
        require(bool(record["commands"]), "commands", [], "at least one")
        made = record["provenance"] == "made"
        for field in ("config_sha256", "git", "seeds", "seconds", "machine") if made else ():
            require(record[field] is not None, field, None, "must be known in a record that is made")
        numbers = set()
        for i, table in enumerate(record["tables"]):
            with within(f"tables[{i}]"):
                _fields(table, TABLE)
                for row in table["rows"]:
                    require(len(row) == len(table["columns"]), "rows", row, f"{len(table['columns'])} cells")
                    numbers |= {cell[0] if isinstance(cell, list) else cell for cell in row}
        for i, claim in enumerate(record["claims"]):
            with within(f"claims[{i}]"):
                _fields(claim, CLAIM)
                one_of(("higher", "lower"), better=claim["better"])
                require(claim["tolerance"] >= 0, "tolerance", claim["tolerance"], "0 or above")
                require((claim["interval"] is None) == (claim["over"] is None), "over", claim["over"],
                        "says what the interval is over, where there is an interval")
                for field, types in (("interval_from", SOURCE), ("published", PUBLISHED)):
                    if claim[field] is not None:
                        with within(field):
                            _fields(claim[field], types)
                if claim["published"] is not None:
                    one_of(GRADES, **{"published.grade": claim["published"]["grade"]})
                require(made or not record["tables"] or claim["value"] in numbers, "value", claim["value"],
                        "must be one of the numbers of the record's tables")
        names = [claim["name"] for claim in record["claims"]]
        require(len(set(names)) == len(names), "claims", names, "names must differ")
    return record


def _fields(block: dict, types: dict) -> None:
    fields(block, types, missing="this field must be given, null where it is not known")
    for name, kind in types.items():
        value = block[name]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        wanted = "number" if kind is NUMBER else kind.__name__
        require(fits or value is None and name in NULLABLE, name, value, f"must be of type {wanted}")


def load(root: str) -> dict[str, Record]:
    """{id: record} of every `results/*.json` under `root`, each checked; ConfigError where one is wrong."""
    found = {}
    for path in sorted(glob.glob(os.path.join(root, "results", "*.json"))):
        with open(path, encoding="utf-8") as file:
            record = check(json.load(file))
        require(os.path.basename(path) == record["id"] + ".json", "id", record["id"], "must be the file's name")
        found[record["id"]] = record
    return found


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
