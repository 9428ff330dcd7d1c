"""Accuracy on common and on rare classes, at the positions that count.

Rare classes are the labels from `rare_from` on, a fact of the task.
"""

import jax

from metalearn.measure import frozen as frozen_lib, losses
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import require


def make(task: TaskDist, learner: Learner, *, split: str, episodes: int, seed: int) -> Evaluator:
    """Evaluates `episodes` frozen episodes of `split`, all at once."""
    require(task.spec.rare_from is not None, "name", "rare_recall", "needs a task with rare classes")
    rare_from = task.spec.rare_from
    frozen = frozen_lib.Frozen(task, split, episodes, episodes, seed)

    @jax.jit
    def score(params, carry, batch):
        """Accuracy on common and on rare labels."""
        hit_BT = losses.correct(learner.predict(params, carry, batch), batch.y_BT)
        rare_BT = batch.y_BT >= rare_from
        return [losses.Mean.of(hit_BT, batch.mask_BT * which_BT).compute() for which_BT in (~rare_BT, rare_BT)]

    def run(params, carry) -> Result:
        common, rare = (float(a) for a in score(params, carry, *frozen))
        table = {"title": f"accuracy on split {split}", "columns": ["labels", "accuracy"],
                 "rows": [["common", f"{common:.3f}"], ["rare", f"{rare:.3f}"]]}
        headline = {"common_accuracy": common, "rare_accuracy": rare} | frozen.hashes
        return {"headline": headline, "tables": [table],
                "facts": {"seed": seed, "episodes": episodes, "episodes_sha256": frozen.digest}}

    return Evaluator(run)
