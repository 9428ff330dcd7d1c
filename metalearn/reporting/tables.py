"""A result's tables on the terminal. Knows no family, only the Result record."""

from __future__ import annotations

from metalearn.types import Result


def show(result: Result) -> None:
    """Prints the result's tables on standard output."""
    for table in result.get("tables", []):
        rows = [[str(c) for c in row] for row in [table["columns"], *table["rows"]]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        print("\n".join(["", table["title"], lines[0], rule, *lines[1:]]), flush=True)
