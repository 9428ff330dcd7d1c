"""Tables of the in-context learners' sweeps (configs/gpicl.py): phases by number of tasks, learners side by side."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from metalearn.measure import statistics
from metalearn.reporting.runs import Run, single
from metalearn.types import Result

UNLIMITED = 2**30  # what num_tasks=0 means
LEFT = 0.2  # above chance: the plateau is left
COLUMNS = {"seen_first": "seen first", "seen_last": "seen last", "unseen_last": "unseen last",
           "newclass_last": "new last", "learning_seen": "L(seen)", "learning_unseen": "L(unseen)",
           "seen_random_labels_last": "true label, random context",
           "seen_relabelled_last": "new label, relabelled", "seen_old_labels_last": "old label, relabelled"}


def phases(runs: Sequence[Run]) -> Result:
    """The runs by K: means over seeds, and dots per seed."""
    at: dict[int, list] = {}  # {K: [numbers at the end]}
    for overrides, numbers, _ in single(runs):
        at.setdefault(overrides["task.num_tasks"] or UNLIMITED, []).append(numbers["curves"])
    Ks = sorted(at)
    mean = lambda K, name: sum(h[name] for h in at[K]) / len(at[K])
    names = (*COLUMNS, "random_last", "memorisation")
    names = [name for name in names if all(name in h for K in Ks for h in at[K])]  # the sets that every run measured
    headline: dict[str, Any] = {"K": Ks, "seeds": [len(at[K]) for K in Ks]}
    headline |= {n: [mean(K, n) for K in Ks] for n in names}
    headline["phase"] = [[h["phase"] for h in at[K]] for K in Ks]
    first_K = lambda holds: next((K for K in Ks if sum(holds(h["phase"]) for h in at[K]) >= len(at[K]) / 2), None)
    headline["K_star"] = first_K(lambda phase: "general" in phase)
    headline["K_star_without_recall"] = first_K(lambda phase: phase in ("general", "dataset-general"))

    shown = [min(K, 2**14) for K in Ks]  # unlimited is drawn at the right edge
    lines = (("seen", "learning_seen", "C0"), ("unseen", "learning_unseen", "C1"), ("new", "learning_newclass", "C2"))
    diagram = {"title": "learning (last - first); right edge: unlimited", "x": shown, "xlabel": "meta-training tasks K",
               "ylabel": "accuracy", "xscale": "log", "series": [], "levels": {"threshold": 0.05}}
    for label, name, color in lines:
        diagram["series"].append({"name": label, "y": [mean(K, name) for K in Ks], "color": color})
        for i in range(max(headline["seeds"]) if max(headline["seeds"]) > 1 else 0):  # one run is its own mean
            dots = [at[K][i][name] if i < len(at[K]) else None for K in Ks]
            diagram["series"].append({"name": f"{label}, single runs", "y": dots, "points": True, "color": color})
    first = diagram | {"title": "memorisation", "levels": {"chance": 0.2}, "series": [
        {"name": "seen, first position", "y": headline["seen_first"], "color": "C3"},
        {"name": "unseen, last positions", "y": headline["unseen_last"], "color": "C1"}]}
    counted = lambda names: "; ".join(f"{n} x {name}" for name, n in sorted(Counter(names).items()))
    columns = {key: title for key, title in COLUMNS.items() if key in names}
    rows = [["unlimited" if K == UNLIMITED else K, len(at[K]), counted(h["phase"] for h in at[K]),
             *(f"{mean(K, key):.3f}" for key in columns)] for K in Ks]
    return {"headline": headline, "curves": [diagram, first],
            "tables": [{"title": "phases by number of meta-training tasks",
                        "columns": ("K", "seeds", "phase", *columns.values()), "rows": rows}]}


def pools(runs: Sequence[Run]) -> Result:
    """Seeds of one learner on every set, against the best baseline of each: by how much, and where it is sure.

    The headline has a list over seeds of `SET_last`, `SET_ahead` and `SET_ahead_fresh`.
    """
    heads = [head["curves"] for _, head, _ in single(runs)]
    sets = [name.removesuffix("_ahead") for name in heads[0] if name.endswith("_ahead")]
    measured = ("last", "ahead", "ahead_fresh")
    headline: dict[str, Any] = {f"{s}_{name}": [h[f"{s}_{name}"] for h in heads] for s in sets for name in measured
                if f"{s}_{name}" in heads[0]}
    rows = []
    for s in sets:
        gap, half = statistics.interval(headline[f"{s}_ahead"])
        sure = [f"{h[f'{s}_ahead']:+.3f} ± {h[f'{s}_ahead_ci95']:.3f}" for h in heads]
        last, last_half = statistics.interval(headline[f"{s}_last"])
        best = ", ".join(sorted({h[f"{s}_ahead_of"] for h in heads}))
        fresh = headline.get(f"{s}_ahead_fresh")
        rows.append([s, statistics.text(last, last_half, 3), best, f"{statistics.text(gap, half, 3)}",
                     "" if fresh is None else f"{sum(fresh) / len(fresh):+.3f}", "; ".join(sure)])
    foreign = [s for s in sets if s.startswith("pool_")]
    mean = lambda s: sum(headline[f"{s}_ahead"]) / len(heads)
    headline |= {"pools": len(foreign), "pools_within_01": sum(mean(s) > -0.01 for s in foreign),
                 "pools_above": sum(mean(s) > 0 for s in foreign), "seeds": len(heads)}
    columns = ("set", "last ± over seeds", "best baseline", "learner - best ± over seeds", "fresh alone",
               "each seed ± over episodes, paired")
    return {"headline": headline, "tables": [{
        "title": "learner minus the best baseline on the same episodes, last five of 20 positions", "columns": columns,
        "rows": rows}]}


def models(runs: Sequence[Run]) -> Result:
    """Every learner on the same task, a row each, best first; accuracy by what it carries from example to example."""
    keys = ("seen_last", "unseen_last", "newclass_last", "random_last")
    headline: dict[str, dict] = {}
    for run in runs:
        found = [head["curves"] for _, head, _ in single([run])]
        headline[run.name] = {key: [h[key] for h in found] for key in (*keys, "unseen_1nn")} | {
            key: run.headline[key] for key in ("parameters", "state_size", "seconds")}
    names = sorted(headline, key=lambda name: -np.mean(headline[name]["unseen_last"]))
    rows = []
    for name in names:
        h = headline[name]
        rows.append([name, len(h["unseen_last"]), h["parameters"], h["state_size"],
                     *(statistics.text(*statistics.interval(h[key]), 3) for key in keys),
                     f"{np.mean(h['unseen_1nn']):.3f}", f"{h['seconds']:.0f}"])
    columns = ("learner", "seeds", "parameters", "state", "seen", "unseen", "new classes", "random", "1-NN, unseen",
               "seconds")
    x = [max(1, headline[name]["state_size"]) for name in names]  # the axis is logarithmic
    series = lambda key: [{"name": name, "points": True, "y": [
        float(np.mean(headline[name][key])) if name == at else None for at in names]} for name in names]
    curves = [{"title": title, "x": x, "xlabel": "numbers carried to the next example", "ylabel": "accuracy",
               "xscale": "log", "series": series(key), "levels": {"chance": 0.2}}
              for title, key in (("unseen tasks", "unseen_last"), ("classes never seen", "newclass_last"))]
    ranks = {}
    for size in ("state_size", "parameters"):  # which of the two accuracy goes by
        sizes, right = zip(*((h[size], np.mean(h["unseen_last"])) for h in headline.values()), strict=True)
        ranks[size] = float(np.asarray(stats.spearmanr(sizes, right))[0])
    return {"headline": headline | {"rank_correlation": ranks}, "curves": curves, "tables": [
        {"title": "accuracy at the last five of 20 positions, 5-way digits, ± 95 % over seeds", "columns": columns,
         "rows": rows},
        {"title": "rank correlation of accuracy on unseen tasks", "columns": ("with state", "with parameters"),
         "rows": [[f"{ranks['state_size']:.2f}", f"{ranks['parameters']:.2f}"]]}]}


def arms(runs: Sequence[Run]) -> Result:
    """Arms over seeds: accuracy at the end, and the updates until new tasks are `LEFT` above chance (its plateau)."""
    groups: dict[str, list] = {}  # {arm: [(numbers at the end, evaluations during training, parameters, state)]}
    for run in runs:
        sizes = run.headline["parameters"], run.headline["state_size"]
        for _, head, history in single([run]):
            groups.setdefault(run.name, []).append((head["curves"], history, *sizes))
    headline: dict[str, dict] = {}
    rows = []
    for name, found in groups.items():
        left = [next((line["step"] for line in history if line["curves"]["generalisation_unseen"] >= LEFT), None)
                for _, history, *_ in found]
        mine = {key: [head[key] for head, *_ in found] for key in ("seen_last", "unseen_last", "newclass_last",
                                                                  "random_last")}
        headline[name] = mine | {"plateau": left, "parameters": found[0][2], "state_size": found[0][3]}
        rows.append([name, len(found), found[0][2], found[0][3],
                     *(statistics.text(*statistics.interval(values), 3) for values in mine.values()),
                     ", ".join("never" if step is None else str(step) for step in left)])
    columns = ("arm", "seeds", "parameters", "state", "seen", "unseen", "new classes", "random", "plateau, by seed")
    return {"headline": headline, "tables": [{
        "title": f"last five positions ± 95 % over seeds; updates until unseen is {LEFT} above chance",
        "columns": columns, "rows": rows}]}


def examples(runs: Sequence[Run]) -> Result:
    """Accuracy by how many examples were seen, of each arm and set over seeds; how far it ends from the best baseline.

    The headline is {arm: {set: {"by_examples": [seeds, examples], "last", "ahead": by seed}}}.
    """
    found: dict[tuple[str, str], list] = {}  # {(arm, set): [(accuracy by examples seen, numbers at the end)]}
    for run in runs:
        with open(os.path.join(run.workdir, "eval", "curves.json")) as file:
            for curve in json.load(file)["curves"]:
                y_T = next(line["y"] for line in curve["series"] if line["name"] == "learner")
                found.setdefault((run.name, curve["title"]), []).append((y_T, run.headline["curves"]))
    headline: dict[str, dict] = {}
    rows, curves, shown = [], {}, []
    for (arm, title), seeds in found.items():
        column = "newclass" if title == "new" else title
        by_T = [statistics.interval(values) for values in zip(*(y_T for y_T, _ in seeds), strict=True)]
        mine = {"by_examples": [y_T for y_T, _ in seeds]} | {
            name: [head[f"{column}_{name}"] for _, head in seeds] for name in ("last", "ahead")}
        headline.setdefault(arm, {})[title] = mine
        shown = sorted({*range(0, len(by_T), 10), len(by_T) - 1})
        rows.append([arm, title, len(seeds), *(statistics.text(*by_T[t], 3) for t in shown),
                     statistics.text(*statistics.interval(mine["ahead"]), 3),
                     ", ".join(sorted({head[f"{column}_ahead_of"] for _, head in seeds}))])
        curve = curves.setdefault(title, {
            "title": title, "x": list(range(len(by_T))), "xlabel": "examples seen", "ylabel": "accuracy", "series": [],
            "levels": {}})
        curve["series"].append({"name": arm, "y": [mean for mean, _ in by_T], "ci95": [half for _, half in by_T]})
    columns = ("arm", "set", "seeds", *map(str, shown), "last five - best baseline", "which")
    return {"headline": headline, "curves": list(curves.values()), "tables": [
        {"title": "accuracy after so many examples, ± 95 % over seeds", "columns": columns, "rows": rows}]}


def grid(runs: Sequence[Run]) -> Result:
    """Width by K: unseen accuracy and memorisation at the end; unseen accuracy by updates and K at each width. The
    headline is {"width W K K": numbers by seed, with the unseen accuracies of each update}."""
    found: dict[tuple, list] = {}  # {(width, K): [(numbers at the end, evaluations during training)]}
    for overrides, head, history in single(runs):
        place = overrides["learner.network.width"], overrides["task.num_tasks"] or UNLIMITED
        found.setdefault(place, []).append((head["curves"], history))
    widths, Ks = (sorted(set(values)) for values in zip(*found, strict=True))
    titles = ["unlimited" if K == UNLIMITED else str(K) for K in Ks]
    headline: dict[str, dict] = {}
    for (width, K), both in found.items():
        by_update = {str(lines[0]["step"]): [line["curves"]["unseen_last"] for line in lines]
                     for lines in zip(*(history for _, history in both), strict=True)}
        headline[f"width {width} K {titles[Ks.index(K)]}"] = {
            key: [head[key] for head, _ in both] for key in ("unseen_last", "seen_last", "memorisation")
        } | {"by_update": by_update}
    at = lambda width, title: headline.get(f"width {width} K {title}")
    cell = lambda values: statistics.text(*statistics.interval(values), 3)
    rows = [[width, name, *("" if (one := at(width, title)) is None else cell(one[key]) for title in titles)]
            for width in widths for name, key in (("unseen", "unseen_last"), ("memorised", "memorisation"))]
    updates = list(next(iter(headline.values()))["by_update"])
    later = [[width, int(step), *("" if (one := at(width, title)) is None else f"{np.mean(one['by_update'][step]):.3f}"
                                  for title in titles)] for width in widths for step in updates]
    curves = []
    for width in widths:
        shown = {title: [statistics.interval(one["by_update"][step]) for step in updates]
                 for title in titles if (one := at(width, title))}
        curves.append({"title": f"width {width}", "x": [int(step) for step in updates], "xlabel": "updates",
                       "ylabel": "unseen accuracy", "levels": {"chance": 0.2}, "series": [
                           {"name": f"K = {title}", "y": [mean for mean, _ in points],
                            "ci95": [half for _, half in points]} for title, points in shown.items()]})
    return {"headline": headline, "curves": curves, "tables": [
        {"title": "by width and K at the end, ± 95 % over seeds", "columns": ("width", "", *titles), "rows": rows},
        {"title": "unseen, by width, updates and K, mean over seeds", "columns": ("width", "updates", *titles),
         "rows": later}]}
