"""A result's tables on the terminal, 80 columns wide. Knows no family, only the Result record."""

import itertools
import textwrap

from metalearn.types import Result

WIDTH = 80


def show(result: Result) -> None:
    """Prints the result's tables; of a wide one the columns in pieces, each with the first column beside it."""
    for table in result.get("tables", []):
        rows = [[textwrap.wrap(str(cell), 48 if i else 30) or [""] for i, cell in enumerate(row)]
                for row in [table["columns"], *table["rows"]]]
        widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(rows[0]))]
        print("", *(textwrap.fill(line, WIDTH) for line in table["title"].splitlines()), sep="\n")
        pieces = [[0]]
        for i in range(1, len(widths)):
            used = sum(widths[j] + 2 for j in pieces[-1])
            if used + widths[i] > WIDTH and len(pieces[-1]) > 1:
                pieces.append([0])
            pieces[-1].append(i)
        for piece in pieces:
            cells = [itertools.zip_longest(*(row[i] for i in piece), fillvalue="") for row in rows]
            lines = ["\n".join("  ".join(c.ljust(widths[i]) for i, c in zip(piece, line, strict=True)).rstrip()
                               for line in row) for row in cells]
            rule = "-" * (sum(widths[i] for i in piece) + 2 * len(piece) - 2)
            print("\n".join([lines[0], rule, *lines[1:]] + ([""] if piece != pieces[-1] else [])), flush=True)
