"""Methods against each other over the same tasks: means, intervals, interquartile means, paired differences.

Two questions, two intervals. How far would the mean move with other *tasks*: 1.96 standard errors over tasks of each
task's mean over seeds. How far with other *seeds*: the interquartile mean over all (seed, task) with a bootstrap that
draws seeds anew within every task (stratified, as in Agarwal et al. 2021, "Deep RL at the edge of the statistical
precipice"). Where a run is one number, as an accuracy is, seeds are all there is: Student's t (`over_seeds`).
"""

from __future__ import annotations

import glob
import json
import os

import numpy as np
from scipy import special

from metalearn.types import Result

DRAWS = 2000  # of the bootstrap


def compare(found: dict[str, dict[str, list]], first: str, known_B, title: str) -> Result:
    """{headline: {returns, differences}, tables} of found[method][protocol] = one row of B task returns per seed.

    first     the method that the others are held against, protocol by protocol, task by task
    known_B   the behaviour's mean return on each task, held against `first` as well; None where there is none
    """
    returns, rows, differences = {}, [], {}
    for method, protocols in found.items():
        for protocol, runs in protocols.items():
            entry = returns.setdefault(method, {})[protocol] = summary(runs)
            low, high = entry["iqm_ci95"]
            rows.append([method, protocol, f"{entry['mean']:.2f} ± {entry['ci95']:.2f}",
                         f"{entry['iqm']:.2f} [{low:.2f}, {high:.2f}]", " ".join(f"{s:.2f}" for s in entry["seeds"])])
    for protocol, runs in found.get(first, {}).items():
        ours_B = np.mean(runs, 0)
        others = {m: np.mean(found[m][protocol], 0) for m in found if m != first and protocol in found[m]}
        for other, theirs_B in (others | ({} if known_B is None else {"behaviour": np.asarray(known_B)})).items():
            gap_B = ours_B - theirs_B
            differences[f"{first}-{other}, {protocol}"] = dict(mean=float(gap_B.mean()), ci95=half_width(gap_B))
    tables = [{"title": f"{title} (± 95 % interval over tasks; IQM [95 % interval over seeds])",
               "columns": ["method", "protocol", "mean", "IQM", "seeds"], "rows": rows},
              {"title": "paired differences over tasks (± 95 % interval)", "columns": ["pair", "difference"],
               "rows": [[k, f"{v['mean']:.2f} ± {v['ci95']:.2f}"] for k, v in differences.items()]}]
    return {"headline": {"returns": returns, "differences": differences}, "tables": tables}


def gather(named: list[tuple[str, str]], fact: str) -> dict[str, dict[str, list]]:
    """found[method][protocol], a row per work directory, out of a fact that its evaluators wrote about every task.

    named   (method, work directory) of each run
    fact    {protocol: values} in the evaluators' facts; plain values count as of protocol ""
    """
    found = {}
    for method, workdir in named:
        for path in sorted(glob.glob(os.path.join(workdir, "eval", "*.json"))):
            with open(path, encoding="utf-8") as file:
                values = json.load(file).get("facts", {}).get(fact, {})
            for protocol, tasks_B in (values if isinstance(values, dict) else {"": values}).items():
                found.setdefault(method, {}).setdefault(protocol, []).append(tasks_B)
    return found


def summary(runs) -> dict:
    """mean, ci95 (over tasks), iqm, iqm_ci95 (over seeds; empty of width with one), seeds (each one's mean)."""
    runs_RB = np.asarray(runs, float)
    R, B = runs_RB.shape
    rng = np.random.default_rng(0)
    drawn = np.take_along_axis(runs_RB[None], rng.integers(0, R, (DRAWS, R, B)), 1)
    low, high = np.quantile([interquartile(d.ravel()) for d in drawn], [0.025, 0.975])
    return dict(mean=float(runs_RB.mean()), ci95=half_width(runs_RB.mean(0)), iqm=interquartile(runs_RB.ravel()),
                iqm_ci95=[float(low), float(high)], seeds=runs_RB.mean(1).tolist())


def interquartile(values) -> float:
    """Mean of the middle half."""
    values, quarter = np.sort(values), len(values) // 4
    return float(values[quarter: len(values) - quarter].mean())


def half_width(values) -> float:
    """Half of a 95 % interval of the mean; NaN with a single value."""
    return float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def over_seeds(values) -> tuple[float, float]:
    """(mean, half of its 95 % interval) over seeds, by Student's t: of few, 1.96 is too narrow. NaN with one."""
    n = len(values)
    if n == 1:
        return float(values[0]), float("nan")
    return float(np.mean(values)), float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / n**0.5)


def text(mean: float, half: float, digits: int) -> str:
    """The mean with its interval, where there is one."""
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"
