"""Table of a sweep of offline meta-reinforcement learning (configs/metadt.py): world models, then methods on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metalearn.measure import statistics
from metalearn.reporting.runs import Run
from metalearn.types import Result

REFERENCES = ("oracle", "behaviour_best", "behaviour", "zero_action", "random")


def returns(runs: Sequence[Run]) -> Result:
    """returns[method][protocol] over seeds and test tasks, with the lines that they are to be read by.

    Runs named `world` are world models, and `explorer` learned from other data than the rest.
    """
    worlds = [run.headline["world"] for run in runs if run.name == "world"]
    policies = [run for run in runs if run.name != "world"]
    lines = {k: run.headline["few"][k] for run in policies if run.name != "explorer" for k in REFERENCES
             if k in run.headline["few"]}
    named = [(run.name, run.workdir) for run in policies]
    found, won, known = (statistics.gather(named, fact) for fact in ("returns", "successes", "behaviour_returns"))
    behaviour_B = known["metadt"][""][0] if "metadt" in known else None
    result = statistics.compare(found, "metadt", behaviour_B, "returns")
    result["headline"] |= {"references": lines, "seeds": max(sum(run.name == p.name for run in runs) for p in policies),
                           "world_test_mse": [h.get("test_mse") for h in worlds],
                           "world_probe_r2": [h["probe_r2"] for h in worlds]}
    if won:
        result["headline"]["success"] = {m: {k: float(np.mean(v)) for k, v in p.items()} for m, p in won.items()}
        result["tables"].insert(1, statistics.compare(won, "metadt", None, "success rate")["tables"][0])
    result["tables"].append({"title": "references on the same tasks", "columns": ["line", "return"],
                             "rows": [[k, f"{v:.2f}"] for k, v in lines.items()]})
    return result
