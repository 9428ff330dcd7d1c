"""Records of experiments made from finished runs, and documents made from records.

  python docs/records.py [--check]     RESULTS.md, and the blocks of README.md and docs/
  python docs/records.py store --id=ID --workdir=DIR [--workdir=DIR ...]
  python docs/records.py row --id=speed --row=NAME --config=... [--config.field=value ...]

`--check` writes nothing and fails where a document differs from its source, results/*.json. `store` replaces the
measurements of a record by those of a finished sweep, or of finished runs, one per seed, and generates the documents.
`row` runs `metalearn benchmark` and puts its row into a record, in the place of the one of that name.
A new record needs what no run can know:

  ... store --id=gpicl_new --workdir=DIR --title="What it is" --command="train --config=... --workdir={out}" \
      --claim=unseen=unseen_last --tolerance=.02 [--better=lower] [--scale=100] [--digits=1]

A document asks for a record between two comments; what stands between them is generated and never edited:

  <!-- results:ID -->                tables of the record ID
  <!-- /results -->
  <!-- results:ID?ROW,ROW -->           of its first table the rows that begin so
  <!-- results:ID/CLAIM -->.850 ± .010<!-- /results -->       one claim, within a line
"""

import glob
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path += [ROOT] if ROOT not in sys.path else []

import jax  # noqa: E402

from docs.fields import CLAIM, GRADES, RECORD, check, load  # noqa: E402
from docs.results import (  # noqa: E402
    Record,
    by_replica,
    commands,
    config_hash,
    find,
    is_sweep,
    json_of,
    measured,
    read,
    run_directories,
)
from metalearn import cli  # noqa: E402
from metalearn.runtime import config as config_lib, manifest, workdir as workdir_lib  # noqa: E402
from metalearn.validate import require  # noqa: E402
from tests import benchmark  # noqa: E402

WIDTH = 110  # of a line of JSON
BLOCK = re.compile(r"<!-- results:([^\n>]+?) -->(.*?)<!-- /results -->", re.S)


def number(value: float, half: float | None, digits: int) -> str:
    """0.850 ± 0.010, or the value alone."""
    text = lambda x: f"{x:,.{digits}f}"
    return text(value) if half is None else f"{text(value)} ± {text(half)}"


def claim_text(record: Record, name: str) -> str:
    """A claim's number with its interval; ConfigError where the record has no such claim."""
    claims = {claim["name"]: claim for claim in record["claims"]}
    claim = find(claims, name)
    return number(claim["value"], claim["interval"], claim["digits"])


def tables(record: Record) -> str:
    """The record's tables, each under its title where there is more than one."""
    parts = []
    for table in record["tables"]:
        lines = [" | ".join(map(str, table["columns"])), "|".join(["---"] * len(table["columns"]))]
        for row in table["rows"]:
            lines.append(" | ".join(_cell(cell, table["digits"]) for cell in row))
        title = f"{table['title']}:\n\n" if table["title"] else ""
        parts.append(title + "\n".join(f"| {line} |" if i != 1 else f"|{line}|" for i, line in enumerate(lines)))
    return "\n\n".join(parts)


def _excerpt(record: Record, rows: list[str]) -> Record:
    """The record with the first of its tables alone, and of that the named rows; ConfigError where one is not there."""
    require(bool(record["tables"]), "results", record["id"], "has no table")
    table = record["tables"][0]
    by_name = {str(row[0]): row for row in table["rows"]}
    return record | {"tables": [table | {"title": "", "rows": [find(by_name, name) for name in rows]}]}


def _cell(cell, digits: int) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list):
        return number(cell[0], cell[1], digits)
    return cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else number(cell, None, digits)


def section(record: Record) -> str:
    """A record as a section of RESULTS.md."""
    imported = "imported: typed by hand from runs of earlier commits, not made again yet"
    facts = [
        f"`{record['id']}`, {'made by the command' if record['provenance'] == 'made' else imported}",
        f"seeds {_known(record['seeds'])}",
        "time not known" if record["seconds"] is None else f"{record['seconds']:,.0f} s",
        f"machine {_known(record['machine'])}",
        f"revision {_known(record['git'])}",
        f"episodes {_known([h[:16] for h in record['episodes_sha256'] or []])}",
    ]
    lines = [f"### {record['title']}", "", "; ".join(facts) + ".", "", "```", *commands(record), "```"]
    if record["tables"]:
        lines += ["", tables(record)]
    if record["claims"]:
        lines += ["", f"`metalearn reproduce {record['id']}` compares: "
                  + "; ".join(_claim(record, claim) for claim in record["claims"]) + "."]
    for note in record["notes"]:
        lines += ["", note]
    return "\n".join(lines)


def _known(value) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else value) or "not known"


def _claim(record: Record, claim: dict) -> str:
    digits, published = claim["digits"], claim["published"]
    over = f" (95 % over {claim['over']})" if claim["over"] else ""
    seeds = f", by seed {' '.join(f'{v:.{digits}f}' for v in claim['per_seed'])}" if claim["per_seed"] else ""
    paper = f", published {published['value']:g} ({published['source']}) [{published['grade']}]" if published else ""
    return f"{claim['name']} {claim_text(record, claim['name'])}{over}{seeds}{paper}, tolerance {claim['tolerance']:g}"


def results(records: dict[str, Record]) -> str:
    """RESULTS.md: a section per record, by family."""
    lines = ["# Results", "",
             "Generated by `python docs/records.py` from `results/*.json`; not edited by hand.",
             "± is half of a 95 % interval; what it is over is said beside it. *imported* numbers were measured by",
             "earlier commits on two CPU cores and typed by hand; `metalearn reproduce ID` runs one again.",
             "Grades of published numbers: " + "; ".join(f"[{k}] {v}" for k, v in GRADES.items()) + "."]
    for family in sorted({record["family"] for record in records.values()}):
        lines += ["", f"## {family}"]
        for record in records.values():
            lines += ["", section(record)] if record["family"] == family else []
    return "\n".join(lines) + "\n"


def fill(text: str, records: dict[str, Record]) -> str:
    """`text` with every block made anew; ConfigError where it names a record or claim that does not exist."""
    blocks = len(BLOCK.findall(text))
    require(blocks == text.count("<!-- results:") == text.count("<!-- /results -->"), "document", text[:40],
            "every <!-- results:ID --> needs its <!-- /results -->")

    def replace(match: re.Match) -> str:
        name, sign, wanted = re.findall(r"^(\w+)([/?]?)(.*)$", match[1])[0]
        record = find(records, name)
        if sign == "?":
            record = _excerpt(record, wanted.split(","))
        body = claim_text(record, wanted) if sign == "/" else f"\n{tables(record)}\n"
        return f"<!-- results:{match[1]} -->{body}<!-- /results -->"

    return BLOCK.sub(replace, text)


def contents(root: str, records: dict[str, Record]) -> dict[str, str]:
    """{path: text} of RESULTS.md and of every document with blocks, as they should be."""
    made = {os.path.join(root, "RESULTS.md"): results(records)}
    paths = [os.path.join(root, "README.md"), *glob.glob(os.path.join(root, "docs", "**", "*.md"), recursive=True)]
    for path in sorted(paths):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if "<!-- results:" in text:
            made[path] = fill(text, records)
    return made


# from finished runs to a record


def save(root: str, record: Record) -> str:
    """Writes the record where `load` finds it; returns the path."""
    path = os.path.join(root, "results", check(record)["id"] + ".json")
    workdir_lib.write_text(path, to_json(record))
    return path


def to_json(value: Any, indent: int = 0) -> str:
    """JSON that is readable and stable: what fits into a line stays on one, short fields of an object share lines."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or indent and len(line) + indent <= WIDTH:
        return line
    keys = [json.dumps(k) + ": " for k in value] if isinstance(value, dict) else [""] * len(value)
    items = list(value.values() if isinstance(value, dict) else value)
    lines = [""]
    for i, (key, item) in enumerate(zip(keys, items, strict=True)):
        text = key + to_json(item, indent + 1) + ("," if i + 1 < len(items) else "")
        shared = isinstance(value, dict) and not isinstance(item, (dict, list)) and "\n" not in lines[-1]
        if lines[-1] and shared and len(lines[-1]) + len(text) + indent < WIDTH:
            lines[-1] += " " + text
        else:
            lines.append(text)
    left, right = "{}" if isinstance(value, dict) else "[]"
    pad = "\n" + " " * indent
    return left + (pad + " ").join(lines).rstrip(" ") + pad + right + ("" if indent else "\n")


def headline(directory: str) -> dict:
    """The numbers of a finished sweep or run; ConfigError where it has not finished."""
    if is_sweep(directory):
        return json_of(directory, "sweep")["headline"]
    require(os.path.isfile(os.path.join(directory, "result.json")), "--workdir", directory,
            "holds neither sweep.json nor result.json: not finished")
    return json_of(directory, "result")


def record(old: Record, directories: Sequence[str]) -> Record:
    """`old` with everything measured taken from finished work: one sweep's directory, or one run's per seed.

    Kept are id, family, title, commands, notes, and of each claim what is not measured.
    """
    runs = [run for directory in directories for run in run_directories(directory)]
    configs, manifests, numbers = ([json_of(run, name) for run in runs] for name in ("config", "manifest", "result"))
    each = [one for result in numbers for one in (result, *result.get("replicas", ()))]
    found = [pair for one in each for pair in cli.flat(one).items()]
    episodes = {value for name, value in found if name.endswith("/episodes_sha256") and value}
    seeds = {setting["seed"] for config, result in zip(configs, numbers, strict=True)
             for setting in [row["setting"] for row in result.get("replicas", ())] or [config]}
    heads = [headline(directory) for directory in directories]
    claims = []
    for claim in old["claims"]:
        value, half, per_seed = measured([by_replica(head, claim["path"]) for head in heads], claim["scale"])
        over, source = "seeds" if half is not None else None, claim["interval_from"]
        if half is None and source is not None:
            half, over = claim["scale"] * read(heads[0], source["path"]), source["over"]
        claims.append(claim | dict(value=value, interval=half, over=over, per_seed=per_seed))
    tables = [dict(title=t["title"], digits=3, columns=list(map(str, t["columns"])), rows=t["rows"])
              for t in _tables(directories[0])]
    same = lambda values: ", ".join(dict.fromkeys(map(str, values)))
    return check(cli.plain(old | dict(
        provenance="made", config_sha256=config_hash(directories), git=same(m["git"] for m in manifests),
        episodes_sha256=sorted(episodes) or None, seeds=sorted(seeds),
        seconds=round(sum(r["seconds"] for r in numbers), 1),
        machine=same(f"{m['machine']}, {m['num_devices']} x {m['device']}" for m in manifests), claims=claims,
        tables=tables)))


def blank(name: str, title: str, commands: list[str], claims: dict[str, str], **shared: Any) -> Record:
    """A record with nothing measured, for `record` to fill: `claims` {name: path}; `shared` is scale, digits, better
    and tolerance of all of them. The family is what stands before the first "_" of the name."""
    empty = dict(value=None, interval=None, over=None, interval_from=None, per_seed=None, published=None)
    return dict.fromkeys(RECORD) | dict(
        id=name, family=name.partition("_")[0], title=title, commands=commands, tables=[], notes=[],
        claims=[dict.fromkeys(CLAIM) | empty | shared | dict(name=k, path=v) for k, v in claims.items()])


def _tables(directory: str) -> list[dict]:
    if is_sweep(directory):
        return json_of(directory, "sweep").get("tables", [])
    names = sorted(glob.glob(os.path.join(directory, "eval", "*.json")))
    names = [name for name in names if "@" not in os.path.basename(name)]  # evaluated otherwise than in training
    return [table for name in names for table in json_of(directory, name[len(directory) + 1:-5]).get("tables", [])]


def generate(root: str, write: bool = True) -> list[str]:
    """Documents under `root` that differ from what the records say, by relative path; written where `write`."""
    changed = []
    for path, text in contents(root, load(root)).items():
        old = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
        if text != old:
            changed.append(os.path.relpath(path, root))
            if write:
                workdir_lib.write_text(path, text)
    return changed


def store(root: str, name: str, directories: list[str], new: dict | None = None) -> dict:
    """The record `name`, or `new` in its place, measured in `directories`; saved, and documents made anew."""
    new = record(new or find(load(root), name), directories)
    save(root, new)
    generate(root)
    return new


def _new(args) -> dict | None:
    """The record that the flags describe; None without a title, for a record that exists."""
    if args.title is None:
        return None
    require(args.tolerance is not None, "--tolerance", "", "say how far a claim may be off and still be reproduced")
    claims = dict(claim.partition("=")[::2] for claim in args.claim)
    return blank(args.id, args.title, args.command, claims, scale=args.scale, digits=args.digits,
                             better=args.better, tolerance=args.tolerance)


def store_row(root: str, name: str, row_name: str, row: dict, command: str, sha256: str, seconds: float) -> None:
    """Puts a row into the record `name` under `root`: in the place of the one called so, or below the others."""
    machine = manifest.describe(row["device"], jax.device_count())
    table = {"title": "", "digits": 2, "columns": benchmark.COLUMNS, "rows": []}
    old = load(root).get(name) or blank(name, "Speed of updates", [], {}) | {"tables": [table]}
    notes = ["Time, revision, configuration and machine are those of the row that was stored last."]
    rows = {r[0]: (r, c) for r, c in zip(old["tables"][0]["rows"], old["commands"], strict=True)}
    rows[row_name] = benchmark.cells(row_name, row), command
    save(root, cli.plain(old | {
        "provenance": "made", "config_sha256": sha256, "git": machine["git"], "seeds": [0],
        "seconds": round(seconds, 1), "notes": notes,
        "machine": f"{machine['machine']}, {row['device']}, {row['matmul_gflops']:.0f} GFLOP/s in a 2048^3 product",
        "commands": [c for _, c in rows.values()], "tables": [table | {"rows": [r for r, _ in rows.values()]}]}))


def store_table(root: str, name: str, title: str, command: str, note: str, table: dict, seconds: float) -> None:
    """Puts a table that is measured as one into the record `name`: in the place of the one of its title, or below the
    others. What stands beside tables is of the one that was stored last."""
    machine, new = manifest.describe("cpu", 1), {table["title"]: table}
    old = load(root).get(name, {"tables": []})["tables"]
    kept = [new.pop(t["title"], t) for t in old]
    save(root, cli.plain(blank(name, title, [command], {}) | {
        "provenance": "made", "config_sha256": "", "git": machine["git"], "seeds": [0],
        "tables": [*kept, *new.values()], "seconds": round(seconds, 1), "machine": machine["machine"],
        "notes": [f"{note} Time and revision are those of the table that was stored last."]}))


def row(args) -> int:
    """Times an update and stores the row."""
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured
    began = time.monotonic()
    measured_row = benchmark.measure(args.config, args.overrides, rounds=7)
    words = [f"--config={args.config}", *(f"--config.{change}" for change in args.overrides)]
    sha256 = hashlib.sha256(config_lib.load(args.config, args.overrides).to_json().encode()).hexdigest()[:16]
    store_row(args.root, args.id, args.row, measured_row, " ".join(["benchmark", *words]), sha256,
              time.monotonic() - began)
    cli.print_result({"rows": [measured_row]})
    return 0


def main() -> int:
    parser = cli.Parser(__doc__, prog="docs/records.py")
    parser.add_argument("what", nargs="?", choices=("documents", "store", "row"), default="documents")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a document differs")
    parser.add_argument("--id", default="", help="store: the record")
    parser.add_argument("--workdir", action="append", default=[], help="store: a finished sweep, or one run per seed")
    parser.add_argument("--config", default="", help="row: of the update that is timed")
    parser.add_argument("--row", default="", help="row: its name in the record")
    parser.add_argument("--title", help="store a new record: one line")
    parser.add_argument("--command", action="append", default=[], help="its commands, {out} for the directory")
    parser.add_argument("--claim", action="append", default=[], help="NAME=PATH into the RESULT line")
    parser.add_argument("--tolerance", type=float, help="of its claims")
    parser.add_argument("--better", choices=("higher", "lower"), default="higher")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--digits", type=int, default=3)
    parser.add_argument("--root", default=ROOT, help="where results/ and the documents lie")
    args = parser.parse()
    if args.what == "row":
        require(bool(args.id and args.row and args.config), "--row", args.row, "needs --id, --row and --config")
        return row(args)
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a record takes no overrides")
    if args.what == "store":
        require(bool(args.workdir), "--workdir", "", "name at least one finished directory")
        stored = store(args.root, args.id, [os.path.abspath(d) for d in args.workdir], _new(args))
        cli.print_result({"id": stored["id"]} | {c["name"]: c["value"] for c in stored["claims"]})
        return 0
    changed = generate(args.root, write=not args.check)
    for path in changed:
        print(f"differs from results/: {path}" if args.check else f"written: {path}", file=sys.stderr)
    cli.print_result({"changed": changed})
    return int(args.check and bool(changed))


if __name__ == "__main__":
    cli.main(main)
