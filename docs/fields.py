"""What a record of results/*.json holds, and its check; what records are for: docs/results.py.

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

import re

from docs import results
from docs.results import Record
from metalearn.validate import fields, one_of, require, within

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
    """`results.load`, each record checked; ConfigError where one is wrong."""
    found = results.load(root)
    for name, record in found.items():
        require(check(record)["id"] == name, "id", record["id"], "must be the file's name")
    return found
