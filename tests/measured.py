"""What the programs that measure tables share: their flags, showing a table, storing it in a record of results/."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from docs import records
from metalearn import cli
from metalearn.reporting import tables
from metalearn.validate import one_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(doc: str | None, record: str, title: str, command: str, note: str, sections: Mapping[str, Callable],
         *, digits: int, rounds: int = 0) -> None:
    """A program that measures the sections that `--only` names, each a function that gives a table.

    With `rounds` they are given the flag of that name, of that default. `--store` puts each table into
    results/<record>.json as it is made.
    """
    cli.main(lambda: _measure(doc, record, title, command, note, sections, digits, rounds))


def _measure(doc, record, title, command, note, sections, digits, rounds) -> None:
    parser = cli.Parser(doc, prog=f"python -m tests.{record}")
    parser.add_argument("--only", default=",".join(sections))
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--store", action="store_true")
    args, found = parser.parse(), []
    for name in args.only.split(","):
        one_of(sections, **{"--only": name})
    for name in args.only.split(","):
        began, table = time.monotonic(), sections[name](*([args.rounds] if rounds else []))
        table |= {"digits": digits}
        found.append(table)
        tables.show({"tables": [table | {"rows": [["" if c is None else str(c) for c in r] for r in table["rows"]]}]})
        if args.store:
            records.store_table(ROOT, record, title, command, note, table, time.monotonic() - began)
    cli.print_result({"tables": found})
