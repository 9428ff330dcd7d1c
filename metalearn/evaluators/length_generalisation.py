"""Loss and accuracy by length, past the training length: for tasks whose data has a `level` and whose split is `exact`.

One program serves every length, because the level is data.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import positive, require


def make(task: TaskDist, learner: Learner, *, lengths: tuple[int, ...], solved_bits: float, episodes: int,
         seed: int) -> Evaluator:
    """`episodes` frozen episodes at each of `lengths`; a length is solved below `solved_bits` per target bit."""
    positive(episodes=episodes, solved_bits=solved_bits)
    require("exact" in task.splits, "name", "lengths", "needs a task with levels (a split `exact`)")
    most = 2 * task.spec.max_level
    for length in lengths:
        require(1 <= length <= most, "lengths", length, f"must lie between 1 and {most}, twice the training length")
    kind = task.spec.targets

    @jax.jit
    def score(params, carry, data, key):
        batch = task.sample(data, key, "exact", episodes)
        out = learner.predict(params, carry, batch)
        out_RBTV = out.reshape(-1, *batch.mask_BT.shape, out.shape[-1])
        mean = lambda values: jax.vmap(lambda v: losses.Mean.of(v, batch.mask_BT).compute())(values)
        loss = mean(losses.position_loss(out_RBTV, jnp.broadcast_to(batch.y_BT, out_RBTV.shape), kind))
        right = mean(losses.position_correct(out_RBTV, jnp.broadcast_to(batch.y_BT, out_RBTV.shape), kind))
        return loss / np.log(2), right, batch.task_B

    @functools.cache
    def data():
        return jax.device_put(task.data)

    def run(params, carry) -> Result:
        bits, right, drawn = [], [], []
        for length in lengths:
            key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), length)
            level = data() | {"level": jnp.full_like(data()["level"], length)}
            b, r, ids = jax.device_get(score(params, carry, level, key))
            bits.append(b), right.append(r), drawn.append(ids.tobytes())
        bits_LR, right_LR = np.stack(bits), np.stack(right)
        solved_R = [max([n for n, b in zip(lengths, bits_LR[:, r], strict=True) if b < solved_bits], default=0)
                    for r in range(bits_LR.shape[1])]
        by_length = lambda values_LR: dict(zip(map(str, lengths), values_LR.mean(1), strict=True))
        headline = {"longest_solved": solved_R, "bits_by_length": by_length(bits_LR),
                    "right_by_length": by_length(right_LR),
                    "episodes_sha256": hashlib.sha256(b"".join(drawn)).hexdigest()}
        if learner.pace:  # where a curriculum stands, copy by copy: it has left every level below behind as learned
            headline["level"] = np.atleast_1d(learner.pace(task.data, carry)[0]["level"]).tolist()
        copies = bits_LR.shape[1]
        half = statistics.interval(bits_LR, 1)[1] if copies > 1 else [None] * len(lengths)
        table = {"title": f"by length (trained up to {most // 2}; {bits_LR.shape[1]} copies)",
                 "columns": ["length", "bits per target bit", "right bits"],
                 "rows": [[n, f"{b:.3f}", f"{r:.3f}"]
                          for n, b, r in zip(lengths, bits_LR.mean(1), right_LR.mean(1), strict=True)]}
        curve = {"title": "length generalisation", "x": list(lengths), "xlabel": "length",
                 "ylabel": "bits per target bit",
                 "series": [{"name": "learner", "y": bits_LR.mean(1), "ci95": half}], "levels": {"chance": 1.0}}
        return {"headline": headline, "tables": [table], "curves": [curve],
                "facts": {"seed": seed, "episodes": episodes}}

    return Evaluator(run)
