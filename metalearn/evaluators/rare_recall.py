"""Accuracy on common and on rare classes, at the positions that count, for every copy that was trained side by side.

Rare classes are the labels from `rare_from` on, a fact of the task.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import numpy as np

from metalearn.measure import losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import one_of, positive, require


def make(task: TaskDist, learner: Learner, *, split: str, episodes: int, seed: int) -> Evaluator:
    """Evaluates `episodes` frozen episodes of `split`, a function of (task, seed)."""
    positive(episodes=episodes)
    one_of(task.splits, split=split)
    require(task.spec.rare_from is not None, "name", "rare_recall", "needs a task with rare classes")
    rare_from = task.spec.rare_from

    @functools.cache
    def frozen():
        data = jax.device_put(task.data)
        draw = jax.jit(lambda data, key: task.sample(data, key, split, episodes))
        batch = draw(data, jax.random.key(seed, impl="threefry2x32"))
        drawn = jax.device_get([batch.task_B, batch.y_BT])
        return batch, hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in drawn)).hexdigest()

    @jax.jit
    def score(params, carry, batch):
        """(R, 2): accuracy on common and on rare labels, of each copy."""
        logits = learner.predict(params, carry, batch)
        logits_RBTV = logits.reshape(-1, *batch.y_BT.shape, logits.shape[-1])
        rare_BT = batch.y_BT >= rare_from
        hit = lambda logits_BTV, which_BT: losses.Mean.of(losses.correct(logits_BTV, batch.y_BT),
                                                           batch.mask_BT * which_BT).compute()
        return jax.vmap(lambda one: jax.numpy.stack([hit(one, ~rare_BT), hit(one, rare_BT)]))(logits_RBTV)

    def run(params, carry) -> Result:
        batch, digest = frozen()
        score_R2 = np.asarray(score(params, carry, batch), np.float64)
        mean, half = statistics.interval(score_R2)
        table = {"title": f"accuracy on split {split} ({len(score_R2)} copies; ± 95 % interval over copies)",
                 "columns": ["labels", "accuracy"],
                 "rows": [[n, f"{m:.3f} ± {h:.3f}"] for n, m, h in zip(("common", "rare"), mean, half, strict=True)]}
        headline = {"common_accuracy": score_R2[:, 0].mean(), "rare_accuracy": score_R2[:, 1].mean(),
                    "common_by_seed": score_R2[:, 0].tolist(), "rare_by_seed": score_R2[:, 1].tolist(),
                    "episodes_sha256": digest}
        return {"headline": headline, "tables": [table], "facts": {"seed": seed, "episodes": episodes}}

    return Evaluator(run)
