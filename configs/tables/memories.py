"""Tables of the sweeps over memories (configs/memories.py): networks by how much they are asked to hold."""

from collections.abc import Sequence

import numpy as np

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


def by_rate(runs: Sequence[Run]) -> Result:
    """A row for each network and learning rate: accuracy at each length. What it has most of is chosen by."""
    headline: dict[str, dict] = {}
    rows = []
    for run in runs:
        for setting, row, _ in single([run]):
            right = row["length_generalisation"]["right_by_length"]
            headline.setdefault(run.name, {})[str(setting["optim.lr"])] = right
            rows.append([run.name, setting["optim.lr"], *(f"{value:.3f}" for value in right.values())])
    return {"headline": headline, "tables": [{"title": "accuracy by length and learning rate, one seed",
                                              "columns": ["network", "rate", *right], "rows": rows}]}


def by_split(runs: Sequence[Run]) -> Result:
    """A row for each split and their mean, a column for each network; then what each has above the first, pair by pair
    of seeds."""
    found = {run.name: [row["by_split"] for _, row, _ in single([run])] for run in runs}
    splits = list(next(iter(found.values()))[0]["accuracy"])
    of = {name: {split: [one["accuracy"][split] for one in seeds] for split in splits} | {
        "mean": [one["mean_accuracy"] for one in seeds]} for name, seeds in found.items()}
    host = runs[0].name
    above = {name: [a - b for a, b in zip(values["mean"], of[host]["mean"], strict=True)]
             for name, values in of.items() if name != host}
    rows = [[split, *(text(*interval(values[split]), 3) for values in of.values())] for split in (*splits, "mean")]
    rows += [[f"above {host}", "", *(text(*interval(diff), 3) for diff in above.values())]]
    nats = {name: [float(np.mean(list(one["nats"].values()))) for one in seeds] for name, seeds in found.items()}
    rows += [["mean nats", *(text(*interval(values), 3) for values in nats.values())]]
    rows += [["parameters", *(str(run.headline["parameters"]) for run in runs)]]
    headline = {run.name: of[run.name] | {"nats": nats[run.name], "parameters": run.headline["parameters"]}
                for run in runs}
    return {"headline": headline | {"above": above},
            "tables": [{"title": f"accuracy by split, ± 95 % over {len(above[runs[-1].name])} seeds",
                        "columns": ["split", *of], "rows": rows}]}
