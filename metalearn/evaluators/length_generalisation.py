"""Loss and accuracy by length, past the training length: for tasks with a `difficulty` and a split `exact`.

One program serves every length, because difficulty is data.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import frozen as frozen_lib, losses
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import positive, require


def make(task: TaskDist, learner: Learner, *, lengths: tuple[int, ...], solved_bits: float, episodes: int,
         seed: int) -> Evaluator:
    """The same `episodes` frozen tasks at each of `lengths`; one is solved below `solved_bits` per target bit."""
    positive(episodes=episodes, solved_bits=solved_bits)
    require("exact" in task.splits, "name", "length_generalisation",
            "needs a task of graded difficulty (a split `exact`)")
    require(len(lengths) > 0, "lengths", lengths, "must name at least one")
    most = task.spec.longest
    for length in lengths:
        require(1 <= length <= most, "lengths", length, f"must lie between 1 and {most}, what the task has room for")
    kind = task.spec.targets

    @jax.jit
    def score(params, carry, batch):
        out_BTV = learner.predict(params, carry, batch)
        mean = lambda values_BT: losses.Mean.of(values_BT, batch.mask_BT).compute()
        loss = mean(losses.position_loss(out_BTV, batch.y_BT, kind))
        return loss / np.log(2), mean(losses.position_correct(out_BTV, batch.y_BT, kind))

    @functools.cache
    def frozen(length):
        data = task.placed | {"difficulty": jnp.full_like(task.placed["difficulty"], length)}
        return frozen_lib.Frozen(dataclasses.replace(task, data=data), "exact", episodes, episodes, seed)

    def run(params, carry) -> Result:
        bits, right = zip(*(jax.device_get(score(params, carry, *frozen(n))) for n in lengths), strict=True)
        digest, _ = frozen_lib.together({n: frozen(n) for n in lengths})
        by_length = lambda values: {str(n): float(v) for n, v in zip(lengths, values, strict=True)}
        headline = {"longest_solved": max([n for n, b in zip(lengths, bits, strict=True) if b < solved_bits],
                                          default=0),
                    "bits_by_length": by_length(bits), "right_by_length": by_length(right),
                    "episodes_sha256": digest}
        if learner.batch_schedule:  # where a curriculum stands: it has left everything easier behind as learned
            headline["difficulty"] = int(learner.batch_schedule(task.data, carry)[0]["difficulty"])
        table = {"title": f"by length (trained up to {task.spec.max_difficulty})",
                 "columns": ["length", "bits per target bit", "right bits"],
                 "rows": [[n, f"{b:.3f}", f"{r:.3f}"] for n, b, r in zip(lengths, bits, right, strict=True)]}
        curve = {"title": "length generalisation", "x": list(lengths), "xlabel": "length",
                 "ylabel": "bits per target bit",
                 "series": [{"name": "learner", "y": list(bits), "ci95": None}], "levels": {"chance": 1.0}}
        return {"headline": headline, "tables": [table], "curves": [curve],
                "facts": {"seed": seed, "episodes": episodes, "episodes_sha256": digest}}

    return Evaluator(run)
