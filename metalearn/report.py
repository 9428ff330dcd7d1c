"""Documents out of stored results, and stored results out of finished runs.

  python -m metalearn.report results [--check]     RESULTS.md, and the blocks of README.md and docs/
  python -m metalearn.report store --id=ID --workdir=DIR [--workdir=DIR ...]

`results --check` writes nothing and fails where a document differs from its source, results/*.json. `store` replaces
the measurements of a record by those of a finished sweep, or of finished runs, one per seed, and generates the
documents. A new record is first written by hand, with its commands and claims (see reporting/results.py).
"""

from __future__ import annotations

import os
import sys

from metalearn import cli
from metalearn.reporting import documents
from metalearn.reporting import results as results_lib
from metalearn.runtime import workdir as workdir_lib
from metalearn.validate import require

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


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


def store(root: str, name: str, directories: list[str]) -> dict:
    """The record `name` with its measurements from `directories`; saved, and documents made anew."""
    old = results_lib.find(results_lib.load(root), name)
    new = results_lib.record(old, directories)
    results_lib.save(root, new)
    generate(root)
    return new


def main() -> int:
    parser = cli.Parser(__doc__, prog="python -m metalearn.report")
    parser.add_argument("what", choices=("results", "store"))
    parser.add_argument("--check", action="store_true", help="results: write nothing, fail where something differs")
    parser.add_argument("--id", default="", help="store: the record")
    parser.add_argument("--workdir", action="append", default=[], help="store: a finished sweep, or one run per seed")
    parser.add_argument("--root", default=ROOT, help="where results/ and the documents lie")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a report takes no overrides")
    if args.what == "store":
        require(bool(args.workdir), "--workdir", "", "name at least one finished directory")
        new = store(args.root, args.id, [os.path.abspath(d) for d in args.workdir])
        cli.print_result({"id": new["id"]} | {c["name"]: c["value"] for c in new["claims"]})
        return 0
    changed = generate(args.root, write=not args.check)
    for path in changed:
        print(f"differs from results/: {path}" if args.check else f"written: {path}", file=sys.stderr)
    cli.print_result({"changed": changed})
    return int(args.check and bool(changed))


if __name__ == "__main__":
    cli.main(main)
