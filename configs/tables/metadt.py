"""Table of a sweep of offline meta-reinforcement learning (configs/metadt.py): world models, then methods on them."""

from collections.abc import Sequence

import numpy as np

from metalearn.measure import statistics
from metalearn.reporting.runs import Run
from metalearn.types import Result

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
    found, won, known = (over_sets([statistics.gather([(run.name, run.workdir) for run in mine], fact)
                                    for mine in sets.values()])
                         for fact in ("returns", "successes", "behaviour_returns"))
    behaviour_B = known["metadt"][""][0] if "metadt" in known else None
    result = statistics.compare(found, "metadt", behaviour_B, "returns")
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
        result["tables"].insert(1, statistics.compare(won, "metadt", None, "success rate")["tables"][0])
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
