"""Table of a few-shot sweep (configs/fewshot.py): every learner on the same frozen episodes."""

from collections.abc import Sequence

from metalearn.measure import statistics
from metalearn.reporting.runs import Run
from metalearn.types import Result

EVALUATORS = ("fewshot", "adaptation")  # no name of one is a name of the other
# what a run may have measured, and the nearest neighbour on the very same episodes
MEASURED = {"accuracy": "nearest_neighbour", "accuracy_test": "nearest_neighbour_test",
            "accuracy_new": "nearest_neighbour_new",
            **{f"mse_{n}": "mse_nearest_neighbour" for n in (0, 1, 10, "10_median")}}


def learners(runs: Sequence[Run]) -> Result:
    """A row for each learner: means over seeds with their interval, each set beside its own nearest neighbour."""
    found: dict[str, list] = {}
    for run in runs:
        numbers = {k: v for evaluator in EVALUATORS for k, v in run.headline.get(evaluator, {}).items()}
        found.setdefault(run.name, []).append(numbers | {"seconds": run.headline["seconds"]})
    columns = [k for k in MEASURED if any(k in h for hs in found.values() for h in hs)]
    neighbours = list(dict.fromkeys(MEASURED[k] for k in columns))
    rows, headline = [], {}
    for name, heads in found.items():
        cells = {k: statistics.interval([h[k] for h in heads]) for k in columns if k in heads[0]}
        near = {k: heads[0][k] for k in neighbours if k in heads[0]}
        row = {k: statistics.text(*cell, 4) for k, cell in cells.items()} | {k: f"{v:.4f}" for k, v in near.items()}
        seconds = sum(h["seconds"] for h in heads) / len(heads)
        order = [k for n in neighbours for k in (*(c for c in columns if MEASURED[c] == n), n)]
        rows.append([name, len(heads), *(row.get(k, "") for k in order), f"{seconds:.0f}"])
        headline |= {f"{name}_{k}": mean for k, (mean, _) in cells.items()} | near
    title = "all learners on the same frozen episodes (± 95 % interval over seeds)"
    columns = ["learner", "seeds", *(k.replace("_", " ") for k in order), "seconds"]
    return {"headline": headline, "tables": [{"title": title, "columns": columns, "rows": rows}]}
