"""Squared error at the positions that count, on frozen episodes of a task with real targets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import frozen as frozen_lib, losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import require


def make(task: TaskDist, learner: Learner, *, split: str, episodes: int, chunk: int, seed: int) -> Evaluator:
    """On `episodes` frozen episodes of `split`, `chunk` at a time (memory only); beside it what the answer 0 costs."""
    kind = task.spec.targets
    require(kind == "real", "name", "squared_error", f"needs a task with real targets, not {kind}")
    frozen = frozen_lib.Frozen(task, split, episodes, chunk, seed)

    @jax.jit
    def score(params, carry, batch):
        """(squared error, that of the answer 0) of each episode."""
        out_BTV = learner.predict(params, carry, batch)
        of = lambda out_BTV: (losses.position_loss(out_BTV, batch.y_BT, kind) * batch.mask_BT).sum(1)
        return tuple(of(out) / batch.mask_BT.sum(1) for out in (out_BTV, jnp.zeros_like(out_BTV)))

    def run(params, carry) -> Result:
        both = zip(*(jax.device_get(score(params, carry, batch)) for batch in frozen), strict=True)
        error_N, zero_N = (np.concatenate(values) for values in both)
        error, half = statistics.interval(error_N)
        headline = {"error": error, "ci95": half, "error_of_zero": float(zero_N.mean(dtype=np.float64))}
        table = {"title": f"squared error, split {split}", "columns": ["this run", "the answer 0"],
                 "rows": [[statistics.text(error, half, 3), f"{headline['error_of_zero']:.3f}"]]}
        return {"headline": headline | frozen.hashes, "tables": [table],
                "facts": {"seed": seed, "episodes": episodes, "episodes_sha256": frozen.digest}}

    return Evaluator(run)
