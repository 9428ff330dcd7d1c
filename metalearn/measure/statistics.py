"""How sure a number is: 95 % intervals over episodes, tasks and seeds, and methods against each other over tasks.

The unit of an interval is what was drawn independently: an episode under one network, a task (windows or repeats of one
task are not independent), a seed. `interval` is Student's t over such units. Where one network plays all tasks, the
interval over seeds draws whole rows of (seeds, tasks) (`rows_half_width`): drawing seeds anew within every task, the
stratified bootstrap of Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", is for runs that share
no network and covers .25 to .40 of the time here.
"""

import glob
import json
import os
from typing import Any

import numpy as np
from scipy import special

from metalearn.types import Result

DRAWS = 1000  # of the bootstrap
MANY = 1000  # values past which 1.96, which papers use, is within .13 % of Student's factor


def factor(n: int) -> float:
    """Half a 95 % interval of a mean in standard errors, of n independent values: Student's t. NaN with one."""
    return float("nan") if n < 2 else 1.96 if n > MANY else float(special.stdtrit(n - 1, 0.975))


def interval(values, axis: int = 0) -> tuple[Any, Any]:
    """(mean, half of its 95 % interval) over independent values along `axis`, in double precision.

    Floats where nothing else is left, else arrays. NaN counts as not measured; the half is NaN with a single value.
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    known = ~np.isnan(values)
    n = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(0) / n
        spread = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(0) / (n - 1))
        half = np.vectorize(factor, otypes=[float])(n) * spread / np.sqrt(n)
    return (mean, half) if mean.ndim else (float(mean), float(half))


def text(mean: float, half: float, digits: int) -> str:
    """The mean with its interval, where there is one."""
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def interquartile(values) -> float:
    """Mean of the middle half."""
    values, quarter = np.sort(values), len(values) // 4
    return float(values[quarter: len(values) - quarter].mean())


def rows_half_width(values_RB) -> float:
    """Half of the 95 % interval of the interquartile mean over seeds, the tasks being given; NaN with one seed.

    Whole rows are drawn. A bootstrap of R rows has a standard error sqrt((R - 1) / R) too small and, of few, quantiles
    far too narrow: so it gives the standard error alone, corrected, and Student's t with R - 1 gives the factor.
    """
    values_RB = np.asarray(values_RB, np.float64)
    R = len(values_RB)
    if R < 2:
        return float("nan")
    drawn = values_RB[np.random.default_rng(0).integers(0, R, (DRAWS, R))].reshape(DRAWS, -1)
    quarter = drawn.shape[1] // 4
    middle = np.sort(drawn, 1)[:, quarter: drawn.shape[1] - quarter].mean(1)
    return factor(R) * float(middle.std()) * (R / (R - 1)) ** 0.5


def summary(runs) -> dict:
    """mean, ci95 (over tasks), iqm, iqm_ci95 (over seeds), seeds (each one's mean) of a row of task values per seed."""
    runs_RB = np.asarray(runs, float)
    iqm, half = interquartile(runs_RB.ravel()), rows_half_width(runs_RB)
    return dict(mean=float(runs_RB.mean()), ci95=interval(runs_RB.mean(0))[1], iqm=iqm,
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
            rows.append([method, protocol, text(entry["mean"], entry["ci95"], 2),
                         text(entry["iqm"], entry["iqm_ci95"][1] - entry["iqm"], 2),
                         " ".join(f"{s:.2f}" for s in entry["seeds"])])
    for protocol, runs in found.get(first, {}).items():
        ours_B = np.mean(runs, 0)
        others = {m: np.mean(found[m][protocol], 0) for m in found if m != first and protocol in found[m]}
        for other, theirs_B in (others | ({} if known_B is None else {"behaviour": np.asarray(known_B)})).items():
            gap_B = ours_B - theirs_B
            differences[f"{first}-{other}, {protocol}"] = dict(zip(("mean", "ci95"), interval(gap_B), strict=True))
    tables = [{"title": f"{title} (mean ± 95 % over tasks; IQM ± 95 % over seeds)",
               "columns": ["method", "protocol", "mean", "IQM", "seeds"], "rows": rows},
              {"title": "paired differences over tasks (± 95 % interval)", "columns": ["pair", "difference"],
               "rows": [[k, text(v["mean"], v["ci95"], 2)] for k, v in differences.items()]}]
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
