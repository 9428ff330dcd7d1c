"""One page of finished runs; documents out of stored results, and stored results out of finished runs.

  metalearn report WORKDIR... [--out=report.html]     tables, curves, paths, the command, several runs side by side;
                                                      from inside attention, memory, gradients, adaptation
  metalearn report --sweep=DIR                        the same of a sweep, without the pictures from inside
  metalearn report results [--check]     RESULTS.md, and the blocks of README.md and docs/
  metalearn report store --id=ID --workdir=DIR [--workdir=DIR ...]

`results --check` writes nothing and fails where a document differs from its source, results/*.json. `store` replaces
the measurements of a record by those of a finished sweep, or of finished runs, one per seed, and generates the
documents. A new record needs what no run can know:

  ... store --id=gpicl_new --workdir=DIR --title="What it is" --command="train --config=... --workdir={out}" \
      --claim=unseen=unseen_last --tolerance=.02 [--better=lower] [--scale=100] [--digits=1]
"""

import json
import os
import sys

from metalearn import api, cli
from metalearn.reporting import documents, html, inside, results as results_lib
from metalearn.runtime import workdir as workdir_lib
from metalearn.validate import ConfigError, require


def generate(root: str, write: bool = True) -> list[str]:
    """Documents under `root` that differ from what the records say, by relative path; written where `write`."""
    changed = []
    for path, text in documents.generate(root, results_lib.load(root)).items():
        old = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
        if text != old:
            changed.append(os.path.relpath(path, root))
            if write:
                workdir_lib.write_text(path, text)
    return changed


def store(root: str, name: str, directories: list[str], new: dict | None = None) -> dict:
    """The record `name`, or `new` in its place, measured in `directories`; saved, and documents made anew."""
    new = results_lib.record(new or results_lib.find(results_lib.load(root), name), directories)
    results_lib.save(root, new)
    generate(root)
    return new


def write_page(workdirs: list[str], sweep: str, out: str) -> int:
    """Writes the page of the runs, or of the sweep and its runs."""
    table = None
    if sweep:
        require(os.path.isfile(path := os.path.join(sweep, "sweep.json")), "--sweep", sweep, "holds no sweep.json")
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
        workdirs = [*workdirs, *(os.path.join(sweep, run["workdir"]) for run in table.get("runs", []))]
    require(bool(workdirs), "WORKDIR", "", "name at least one run, --sweep=DIR, results or store")
    require(not os.path.isdir(out), "--out", out, "is a directory")
    title = ", ".join(os.path.basename(os.path.abspath(path)) for path in ([sweep] if sweep else workdirs))
    insides = {} if sweep else {path: _inside(path) for path in workdirs}
    workdir_lib.write_text(os.path.abspath(out), html.page(title, workdirs, table, insides))
    cli.print_result({"out": os.path.abspath(out), "runs": len(workdirs)})
    return 0


def _inside(workdir: str) -> dict:
    """Pictures from inside the run's learner; {} with a word where it cannot be loaded, or its data are gone."""
    try:
        return inside.pictures(api.load(workdir))
    except (ConfigError, cli.Failure) as error:
        cli.say(f"no pictures from inside {workdir}: {error}")
        return {}


def _new(args) -> dict | None:
    """The record that the flags describe; None without a title, for a record that exists."""
    if args.title is None:
        return None
    require(args.tolerance is not None, "--tolerance", "", "say how far a claim may be off and still be reproduced")
    claims = dict(claim.partition("=")[::2] for claim in args.claim)
    return results_lib.blank(args.id, args.title, args.command, claims, scale=args.scale, digits=args.digits,
                             better=args.better, tolerance=args.tolerance)


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn report")
    parser.add_argument("what", nargs="*", help="results, store, or work directories")
    parser.add_argument("--sweep", default="", help="a finished sweep's directory")
    parser.add_argument("--out", default="report.html", help="the page to write")
    parser.add_argument("--check", action="store_true", help="results: write nothing, fail where something differs")
    parser.add_argument("--id", default="", help="store: the record")
    parser.add_argument("--workdir", action="append", default=[], help="store: a finished sweep, or one run per seed")
    parser.add_argument("--title", help="store a new record: one line")
    parser.add_argument("--command", action="append", default=[], help="its commands, {out} for the directory")
    parser.add_argument("--claim", action="append", default=[], help="NAME=PATH into the RESULT line")
    parser.add_argument("--tolerance", type=float, help="of its claims")
    parser.add_argument("--better", choices=("higher", "lower"), default="higher")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--digits", type=int, default=3)
    parser.add_argument("--root", default=results_lib.ROOT, help="where results/ and the documents lie")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a report takes no overrides")
    if args.sweep or args.what not in (["results"], ["store"]):
        return write_page(args.what, args.sweep, args.out)
    if args.what == ["store"]:
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
