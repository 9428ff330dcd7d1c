"""Table of a sweep of offline meta-reinforcement learning (configs/metadt.py): world models, then methods on them."""

import glob
import json
import os
from collections.abc import Sequence

import numpy as np

from metalearn.measure import statistics
from metalearn.reporting.runs import Run
from metalearn.types import Result

DRAWS = 1000  # of the bootstrap
REFERENCES = ("oracle", "behaviour_best", "behaviour", "zero_action", "random")


def returns(runs: Sequence[Run]) -> Result:
    """returns[method][protocol] over seeds and test tasks, with the lines that they are to be read by.

    Runs named `world` are world models, judged by their error past the first steps. Of several sets of tasks
    (`task.task_seed`) all tasks are units alike, see `over_sets`.
    """
    worlds = [run.headline["world"] for run in runs if run.name == "world"]
    policies = [run for run in runs if run.name != "world"]
    sets: dict = {}
    for run in policies:
        sets.setdefault(run.overrides.get("task.task_seed"), []).append(run)
    found, won, known = (over_sets([gather([(run.name, run.workdir) for run in mine], fact)
                                    for mine in sets.values()])
                         for fact in ("returns", "successes", "behaviour_returns"))
    behaviour_B = known["metadt"][""][0] if "metadt" in known else None
    result = compare(found, "metadt", behaviour_B, "returns")
    by_set = [{k: run.headline["few"][k] for run in mine for k in REFERENCES if k in run.headline["few"]}
              for mine in sets.values()]
    lines = {k: float(np.mean([line[k] for line in by_set])) for k in REFERENCES if all(k in line for line in by_set)}
    rows = [len(rows) for protocols in found.values() for rows in protocols.values()]
    result["headline"] |= {"references": lines, "seeds": max(rows, default=0), "task_sets": len(sets),
                           "left_out": sorted({run.name for run in policies} - set(found)),
                           "world_test_mse_informed": [world["test_mse_informed"] for world in worlds],
                           "world_probe_r2": [world["probe_r2"] for world in worlds]}
    if won:
        result["headline"]["success"] = {m: {k: float(np.mean(v)) for k, v in p.items()} for m, p in won.items()}
        result["tables"].insert(1, compare(won, "metadt", None, "success rate")["tables"][0])
    result["tables"].append({"title": "references on the same tasks", "columns": ["line", "return"],
                             "rows": [[k, f"{v:.2f}"] for k, v in lines.items()]})
    if worlds:
        of = lambda name, digits: " ".join(f"{world[name]:.{digits}f}" for world in worlds)
        result["tables"].append({
            "title": "world models on test tasks, one number per run", "columns": ["number", "runs"],
            "rows": [["squared error of steps with a whole context", of("test_mse_informed", 5)],
                     ["R^2 of the task from a code", of("probe_r2", 2)]]})
    return result


def over_sets(parts: Sequence[dict[str, dict[str, list]]]) -> dict[str, dict[str, list]]:
    """found[method][protocol] of each set of tasks -> the same with a seed's rows joined: all tasks side by side.

    What a set lacks is left out, since its mean would be over other tasks; so is a seed that only some sets have.
    """
    first, *others = parts or ({},)
    return {method: kept for method, protocols in first.items() if (kept := {
        protocol: [np.concatenate(row).tolist() for row in zip(rows, *(part[method][protocol] for part in others),
                                                               strict=False)]
        for protocol, rows in protocols.items()
        if all(protocol in part.get(method, ()) for part in others)})}


def rows_half_width(values_RB) -> float:
    """Half of the 95 % interval of the interquartile mean over seeds, the tasks being given; NaN with one seed.

    Whole rows are drawn: drawing seeds anew within every task, the stratified bootstrap of Agarwal et al. 2021, "Deep
    RL at the edge of the statistical precipice", is for runs that share no network and covers .25 to .40 of the time
    here. A bootstrap of R rows has a standard error sqrt((R - 1) / R) too small and, of few, quantiles
    far too narrow: so it gives the standard error alone, corrected, and Student's t with R - 1 gives the factor.
    """
    values_RB = np.asarray(values_RB, np.float64)
    R = len(values_RB)
    if R < 2:
        return float("nan")
    drawn = values_RB[np.random.default_rng(0).integers(0, R, (DRAWS, R))].reshape(DRAWS, -1)
    quarter = drawn.shape[1] // 4
    middle = np.sort(drawn, 1)[:, quarter: drawn.shape[1] - quarter].mean(1)
    return statistics.factor(R) * float(middle.std()) * (R / (R - 1)) ** 0.5


def summary(runs) -> dict:
    """mean, ci95 (over tasks), iqm, iqm_ci95 (over seeds), seeds (each one's mean) of a row of task values per seed."""
    runs_RB = np.asarray(runs, float)
    iqm, half = statistics.interquartile(runs_RB.ravel()), rows_half_width(runs_RB)
    return dict(mean=float(runs_RB.mean()), ci95=statistics.interval(runs_RB.mean(0))[1], iqm=iqm,
                iqm_ci95=[iqm - half, iqm + half], seeds=runs_RB.mean(1).tolist())


def compare(found: dict[str, dict[str, list]], first: str, known_B, title: str) -> Result:
    """{headline: {returns, differences}, tables} of found[method][protocol] = one row of B task returns per seed.

    first     the method that the others are held against, protocol by protocol, task by task
    known_B   the behaviour's mean return on each task, held against `first` as well; None where there is none
    """
    returns, rows, differences = {}, [], {}
    for method, protocols in found.items():
        for protocol, runs in protocols.items():
            entry = returns.setdefault(method, {})[protocol] = summary(runs)
            rows.append([method, protocol, statistics.text(entry["mean"], entry["ci95"], 2),
                         statistics.text(entry["iqm"], entry["iqm_ci95"][1] - entry["iqm"], 2),
                         " ".join(f"{s:.2f}" for s in entry["seeds"])])
    for protocol, runs in found.get(first, {}).items():
        ours_B = np.mean(runs, 0)
        others = {m: np.mean(found[m][protocol], 0) for m in found if m != first and protocol in found[m]}
        for other, theirs_B in (others | ({} if known_B is None else {"behaviour": np.asarray(known_B)})).items():
            gap_B = ours_B - theirs_B
            mean, half = statistics.interval(gap_B)
            differences[f"{first}-{other}, {protocol}"] = {"mean": mean, "ci95": half}
    tables = [{"title": f"{title} (mean ± 95 % over tasks; IQM ± 95 % over seeds)",
               "columns": ["method", "protocol", "mean", "IQM", "seeds"], "rows": rows},
              {"title": "paired differences over tasks (± 95 % interval)", "columns": ["pair", "difference"],
               "rows": [[k, statistics.text(v["mean"], v["ci95"], 2)] for k, v in differences.items()]}]
    return {"headline": {"returns": returns, "differences": differences}, "tables": tables}


def gather(named: list[tuple[str, str]], fact: str) -> dict[str, dict[str, list]]:
    """found[method][protocol], a row per run, out of a fact that its evaluators wrote about every task.

    named   (method, work directory) of each program, whose replicas are a run each
    fact    {protocol: values} in the evaluators' facts; plain values count as of protocol ""
    """
    found = {}
    for method, workdir in named:
        for path in sorted(glob.glob(os.path.join(workdir, "eval", "*.json"))):
            if "@" in os.path.basename(path):  # evaluated otherwise than in training
                continue
            with open(path, encoding="utf-8") as file:
                result = json.load(file)
            for replica in result.get("replicas") or [result]:
                values = replica.get("facts", {}).get(fact, {})
                for protocol, tasks_B in (values if isinstance(values, dict) else {"": values}).items():
                    found.setdefault(method, {}).setdefault(protocol, []).append(tasks_B)
    return found
