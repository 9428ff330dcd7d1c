"""Accuracy at the i-th presentation of a class, the figure of online (MANN's) protocols; rare beside common classes."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import frozen as frozen_lib, losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import positive


def make(task: TaskDist, learner: Learner, *, split: str, upto: int, episodes: int, chunk: int, seed: int,
         targets: dict) -> Evaluator:
    """Presentations 1..upto on `episodes` frozen episodes of `split`, `chunk` at a time (memory only).

    targets  {name: {"1": accuracy, ...}} from elsewhere, shown beside for comparison
    """
    positive(upto=upto)
    ways, rare_from = task.spec.outputs, task.spec.outputs if task.spec.rare_from is None else task.spec.rare_from
    frozen = frozen_lib.Frozen(task, split, episodes, chunk, seed)

    @jax.jit
    def score(params, carry, batch):
        """Hits (B, upto) by label group (common, rare), and their counts."""
        hit_BT = losses.correct(learner.predict(params, carry, batch), batch.y_BT)
        y_BTV = jax.nn.one_hot(batch.y_BT, ways)
        nth_BT = jnp.take_along_axis(jnp.cumsum(y_BTV, 1), batch.y_BT[..., None], -1)[..., 0]  # 1 at the first
        nth_BTI = (nth_BT[..., None] == jnp.arange(1, upto + 1)) * batch.mask_BT[..., None]
        groups_BTI = [nth_BTI * (batch.y_BT < rare_from)[..., None], nth_BTI * (batch.y_BT >= rare_from)[..., None]]
        hits = jnp.stack([jnp.einsum("bt,bti->bi", hit_BT, g) for g in groups_BTI])
        return hits, jnp.stack([g.sum(1) for g in groups_BTI])

    def run(params, carry) -> Result:
        out = [jax.device_get(score(params, carry, batch)) for batch in frozen]
        hits, counts = (np.concatenate(of, 1) for of in zip(*out, strict=True))
        total_EI, count_EI = hits.sum(0), counts.sum(0)
        mean_I = total_EI.sum(0) / np.maximum(count_EI.sum(0), 1)
        # an episode without an i-th presentation has no accuracy there
        half_I = statistics.interval(np.where(count_EI > 0, total_EI / np.maximum(count_EI, 1), np.nan))[1]
        shown = [i for i in (1, 2, 3, 4, 5, 10) if i <= upto]
        headline = {f"instance_{i}": mean_I[i - 1] for i in shown}
        headline |= {f"instance_{i}_ci95": half_I[i - 1] for i in shown}
        if rare_from < ways:
            of = lambda g: hits[g].sum() / counts[g].sum()
            headline |= {"common_accuracy": of(0), "rare_accuracy": of(1)}
        rows = [["this run", *(f"{mean_I[i - 1]:.3f} ± {half_I[i - 1]:.3f}" for i in shown)]]
        cell = lambda row, i: f"{row[str(i)]:.3f}" if str(i) in row else ""
        rows += [[name, *(cell(row, i) for i in shown)] for name, row in targets.items()]
        table = {"title": f"accuracy at the i-th presentation of a class, split {split}",
                 "columns": ["", *(str(i) for i in shown)], "rows": rows}
        curve = {"title": split, "x": list(range(1, upto + 1)), "xlabel": "presentation of a class",
                 "ylabel": "accuracy",
                 "series": [{"name": "learner", "y": mean_I, "ci95": half_I}], "levels": {"chance": 1 / ways}}
        return {"headline": headline | frozen.hashes, "tables": [table], "curves": [curve],
                "facts": {"seed": seed, "episodes": episodes, "episodes_sha256": frozen.digest}}

    return Evaluator(run)
