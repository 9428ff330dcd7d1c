"""A result's tables on the terminal, 80 columns wide. Knows no family, only the Result record."""

from __future__ import annotations

import textwrap

from metalearn.types import Result

WIDTH = 80


def show(result: Result) -> None:
    """Prints the result's tables; of a wide one the columns in pieces, each with the first column beside it."""
    for table in result.get("tables", []):
        rows = [[textwrap.wrap(str(cell), 48 if i else 30) or [""] for i, cell in enumerate(row)]
                for row in [table["columns"], *table["rows"]]]
        widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(rows[0]))]
        print("\n" + textwrap.fill(table["title"], WIDTH))
        pieces = [[0]]
        for i in range(1, len(widths)):
            used = sum(widths[j] + 2 for j in pieces[-1])
            if used + widths[i] > WIDTH and len(pieces[-1]) > 1:
                pieces.append([0])
            pieces[-1].append(i)
        for piece in pieces:
            lines = [_line([row[i] for i in piece], [widths[i] for i in piece]) for row in rows]
            rule = "-" * (sum(widths[i] for i in piece) + 2 * len(piece) - 2)
            print("\n".join([lines[0], rule, *lines[1:]] + ([""] if piece != pieces[-1] else [])), flush=True)


def _line(cells: list[list[str]], widths: list[int]) -> str:
    """One row, of as many lines as its longest cell has."""
    height = max(map(len, cells))
    lines = [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines)
