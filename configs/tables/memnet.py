"""Tables of the memory networks' sweeps (configs/memnet.py); its runs' labels say which row and column each is of."""

import os
from collections.abc import Sequence

from metalearn.measure.statistics import interval, text
from metalearn.reporting.runs import Run, single
from metalearn.runtime import writer
from metalearn.types import Result


def cost(runs: Sequence[Run]) -> Result:
    """One update: rows by name and rule; the overhead of synthetic over truncated (CPU time)
    where a name has both."""
    shown = ("temp_bytes", "ms_per_update", "cpu_ms_per_update", "positions_per_second", "compile_seconds")
    headline, rows = {}, []
    for run in runs:
        rule = run.overrides["learner.rule"]
        headline.setdefault(run.name, {})[rule] = {k: run.headline["cost"][k] for k in shown}
        rows.append([run.name, rule, *(f"{run.headline['cost'][k]:.4g}" for k in shown)])
    cost_of = lambda rules, rule: rules[rule]["cpu_ms_per_update"]
    over = {name: cost_of(rules, "synthetic") / cost_of(rules, "tbptt") - 1 for name, rules in headline.items()
            if {"synthetic", "tbptt"} <= rules.keys()}
    table = {"title": "one update: NSE by episode length, segments of 16 (bptt: the episode); every memory at L = 256",
             "columns": ["memory", "rule", "temp bytes", "ms", "CPU ms", "positions/s", "compile s"], "rows": rows}
    return {"headline": {"cost": headline, "overhead_of_synthetic": over}, "tables": [table]}


def copy(runs: Sequence[Run]) -> Result:
    """Longest sequence solved, by segment length and arm."""
    headline, rows = {}, []
    for run in runs:
        # one below the difficulty that the curriculum stands at: training on one length forgets the shorter ones
        segment = str(run.overrides["learner.segment"])
        solved = [row["length_generalisation"]["difficulty"] - 1 for _, row, _ in single([run])]
        headline.setdefault(run.name, {})[segment] = solved
        rows.append([segment, run.name, _interval(solved, 1), ", ".join(map(str, solved))])
    table = {"title": "longest sequence solved (below .15 bit), by segment length T; mean ± 95 % over seeds",
             "columns": ["T", "arm", "longest", "by seed"], "rows": rows}
    return {"headline": {"longest_solved": headline}, "tables": [table]}


def shared(runs: Sequence[Run]) -> Result:
    """Area under the learning curve: mean accuracy over the 20 evaluations of 400 batches, by seed; how far basis and
    feedback together are above either alone, seed by seed."""
    headline, rows, series, x = {"area": {}, "area_rare": {}, "paired": {}}, [], [], []
    for run in runs:
        name, histories, areas = run.label, [history for _, _, history in single([run])], {}
        for kind in ("common", "rare"):
            areas[kind] = [_mean(h["rare"][f"{kind}_accuracy"] for h in history) for history in histories]
        if not name.startswith("source"):
            headline["area"][name], headline["area_rare"][name] = areas["common"], areas["rare"]
            rows.append([name, len(histories), _interval(areas["common"]), _interval(areas["rare"])])
            y = [_mean(h["rare"]["rare_accuracy"] for h in at) for at in zip(*histories, strict=True)]
            series.append({"name": name, "y": y, "ci95": None})
        x = [20 * (1 + i) for i in range(len(histories[0]))]
    paired = []
    for name, both in headline["area_rare"].items():
        for other in ("basis", "feedback"):
            alone = name.replace("basis and feedback", other)
            if alone != name and alone in headline["area_rare"]:
                gap = [a - b for a, b in zip(both, headline["area_rare"][alone], strict=True)]
                headline["paired"][f"{name} - {other}"] = gap
                paired.append([f"{name} - {other}", len(gap), "", _interval(gap)])
    table = {"title": "area under the learning curve, 400 batches, mean accuracy ± 95 % over seeds",
             "columns": ["feedback", "seeds", "common", "rare"], "rows": rows + paired}
    curve = {"title": "shared feedback", "x": x, "xlabel": "batches", "ylabel": "rare accuracy", "series": series,
             "levels": {"chance": 1 / 8}}
    return {"headline": headline, "tables": [table], "curves": [curve]}


def streams(runs: Sequence[Run]) -> Result:
    """Accuracy at the i-th presentation of each network, over seeds, and how far each is ahead of the LSTM of its seed;
    where the evaluator was given targets (by names that begin with a network's), they stand beside."""
    presentations, groups = ("1", "2", "5", "10"), {}
    for run in runs:
        groups.setdefault(run.name, {})[run.overrides.get("seed", 0)] = run
    at = lambda run, p: run.headline["kth_presentation"][f"instance_{p}"]
    headline, rows, ahead = {}, [], []
    for name, by_seed in groups.items():
        means = {p: interval([at(run, p) for run in by_seed.values()]) for p in presentations}
        headline[name] = {f"instance_{p}": [at(run, p) for run in by_seed.values()] for p in presentations}
        rows.append([name, len(by_seed), *(text(*means[p], 3) for p in presentations)])
        paired = sorted(by_seed.keys() & groups.get("LSTM", {}).keys())
        if name != "LSTM" and paired:
            over = {p: [at(by_seed[s], p) - at(groups["LSTM"][s], p) for s in paired] for p in presentations}
            headline[name]["ahead_of_lstm"] = over
            ahead.append([f"{name} - LSTM", len(paired), *(_interval(over[p]) for p in presentations)])
        any_run = next(iter(by_seed.values()))
        for target, row in any_run.config().evaluators.kth_presentation.targets.to_dict().items():
            if target.startswith(name):
                rows.append([target, "", *(f"{row[p]:.3f}" for p in presentations)])
    table = {"title": "accuracy at the i-th presentation, new classes, ± 95 % over seeds",
             "columns": ["", "seeds", *presentations], "rows": rows + ahead}
    return {"headline": headline, "tables": [table]}


def credit(runs: Sequence[Run]) -> Result:
    """What each memory learned by each rule, over seeds, and the last R^2 of what told it of the future."""
    shown = {"kth_presentation": ("common_accuracy", "rare_accuracy"), "squared_error": ("error", "error_of_zero")}
    headline, rows, names = {}, [], ()
    for run in runs:
        heads = [head for _, head, _ in single([run])]
        evaluator = next(name for name in shown if name in heads[0])
        names = shown[evaluator]
        found = {name: [head[evaluator][name] for head in heads] for name in names}
        last = writer.read(os.path.join(run.workdir, "metrics.jsonl"))[-1]
        last = last.get("by_replica", {name: [value] for name, value in last.items()})  # of one replica alone
        found["sg_r2"] = last.get("sg_r2", [])
        headline[run.name] = found
        rows.append([run.name, *(_interval(found[name]) for name in names),
                     " ".join(f"{r2:.2g}" for r2 in found["sg_r2"])])
    table = {"title": "by what sends credit, ± 95 % over seeds",
             "columns": ["memory and rule", *(name.replace("_", " ") for name in names), "R^2 of the feedback"],
             "rows": rows}
    return {"headline": headline, "tables": [table]}


def gated(runs: Sequence[Run]) -> Result:
    """The arms of gated recall: rare and common accuracy, and batches until they reach .9."""
    names = ("rare_accuracy", "common_accuracy", "rare_ci95", "common_ci95", "batches_to_90", "batches_to_90_common",
             "batches_to_90_by_seed")
    headline, rows = {name: {} for name in names}, []
    for run in runs:
        arm, length = run.name, run.overrides["task.length"]
        # another network stands before its arm
        updates, replicas = 1 if arm.split()[-1] == "bptt" else length // 3, list(single([run]))
        found, cells = {}, []
        for kind in ("common", "rare"):
            values = [row["rare"][f"{kind}_accuracy"] for _, row, _ in replicas]
            found[kind] = [min((h["step"] // updates for h in history if h["rare"][f"{kind}_accuracy"] >= 0.9),
                               default=None) for _, _, history in replicas]
            for name, value in zip((f"{kind}_accuracy", f"{kind}_ci95"), interval(values), strict=True):
                headline[name].setdefault(arm, {})[str(length)] = value
            cells.append(_interval(values))
        for name, value in (("batches_to_90", _median(found["rare"])), ("batches_to_90_by_seed", found["rare"]),
                            ("batches_to_90_common", _median(found["common"]))):
            headline[name].setdefault(arm, {})[str(length)] = value
        rows.append([str(length), arm, *cells, *(str(_median(found[kind]) or "never") for kind in ("common", "rare"))])
    table = {"title": "gated recall, segments of 3: 3 seeds, ± 95 % interval over seeds; median batches to .9",
             "columns": ["L", "arm", "common", "rare", "batches, common", "batches, rare"], "rows": rows}
    return {"headline": headline, "tables": [table]}


def _median(found: list[int | None]) -> int | None:
    """The middle seed's; None where more than half of the seeds never got there."""
    middle = sorted(float("inf") if f is None else f for f in found)[len(found) // 2]
    return None if middle == float("inf") else int(middle)


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _interval(v: list[float], digits: int = 3) -> str:
    return text(*interval(v), digits)
