"""Accuracy and loss at the positions that count, of several splits side by side."""

from __future__ import annotations

import jax
import numpy as np

from metalearn.measure import frozen as frozen_lib, losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import require


def make(task: TaskDist, learner: Learner, *, splits: tuple[str, ...], episodes: int, chunk: int,
         seed: int) -> Evaluator:
    """`episodes` frozen episodes of each split, `chunk` at a time (memory only). splits: (): all but training's."""
    require(task.spec.classes, "name", "by_split", "needs a task with labels")
    splits = splits or task.splits[1:]
    frozen = {split: frozen_lib.Frozen(task, split, episodes, chunk, seed) for split in splits}

    @jax.jit
    def score(params, carry, batch):
        """(accuracy, loss in nats) of each episode."""
        out_BTV = learner.predict(params, carry, batch)
        of = lambda value_BT: (value_BT * batch.mask_BT).sum(1) / batch.mask_BT.sum(1)
        return of(losses.correct(out_BTV, batch.y_BT)), of(losses.position_loss(out_BTV, batch.y_BT, "classes"))

    def run(params, carry) -> Result:
        right, nats, rows = {}, {}, []
        for split, batches in frozen.items():
            both = zip(*(jax.device_get(score(params, carry, batch)) for batch in batches), strict=True)
            right_N, nats_N = (np.concatenate(values) for values in both)
            right[split], half = statistics.interval(right_N)
            nats[split] = float(nats_N.mean(dtype=np.float64))
            rows.append([split, statistics.text(right[split], half, 3), f"{nats[split]:.3f}"])
        digest, inputs = frozen_lib.together(frozen)
        headline = {"accuracy": right, "mean_accuracy": float(np.mean(list(right.values()))), "nats": nats,
                    "episodes_sha256": digest, "inputs_sha256": inputs}
        return {"headline": headline, "facts": {"seed": seed, "episodes": episodes, "episodes_sha256": digest},
                "tables": [{"title": "by split", "columns": ["split", "accuracy", "nats"], "rows": rows}]}

    return Evaluator(run)
