"""Tables of the sweeps over memories (configs/memories.py): networks by how much they are asked to hold."""

from collections.abc import Sequence

from metalearn.measure.statistics import interval, text
from metalearn.reporting.runs import Run, single
from metalearn.types import Result


def by_length(runs: Sequence[Run]) -> Result:
    """A row for each network: accuracy at each length (pairs, words) with its interval over seeds."""
    headline, rows, series, lengths = {}, [], [], []
    for run in runs:
        found = [row["length_generalisation"]["right_by_length"] for _, row, _ in single([run])]
        lengths = list(found[0])
        means = {n: interval([right[n] for right in found]) for n in lengths}
        headline[run.name] = {n: [right[n] for right in found] for n in lengths} | {
            "parameters": run.headline["parameters"], "state_size": run.headline["state_size"]}
        rows.append([run.name, len(found), run.headline["parameters"], run.headline["state_size"],
                     *(text(*means[n], 3) for n in lengths)])
        series.append({"name": run.name, "y": [means[n][0] for n in lengths], "ci95": [means[n][1] for n in lengths]})
    curve = {"title": "recall", "x": [int(n) for n in lengths], "xlabel": "asked to hold", "ylabel": "accuracy",
             "xscale": "log", "series": series, "levels": {}}
    table = {"title": "accuracy by length, ± 95 % over seeds",
             "columns": ["network", "seeds", "parameters", "state", *lengths], "rows": rows}
    return {"headline": headline, "tables": [table], "curves": [curve]}
