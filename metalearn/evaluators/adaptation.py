"""Error or accuracy on the queries after 0, 1, 2, ... inner steps, on frozen episodes (Finn et al. 2017, figure 3).

Of errors also the median over episodes and the worst one, which alone makes the mean where its steps diverge.
"""

import jax
import numpy as np

from metalearn.learning import support_query
from metalearn.measure import frozen as frozen_lib, losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import positive, require


def make(task: TaskDist, learner: Learner, *, split: str, steps: int, episodes: int, chunk: int,
         seed: int) -> Evaluator:
    """Evaluates after 0..`steps` inner steps: squared error for targets (`mse_<n>`), accuracy for labels."""
    support_query.need(task.spec)
    positive(steps=steps)
    require(learner.path is not None, "name", "adaptation", "this learner does not adapt by steps")
    facts = task.facts
    frozen = frozen_lib.Frozen(task, split, episodes, chunk, seed)
    labels = task.spec.classes
    name = "accuracy" if labels else "mse"

    def value(outputs, y):
        return losses.correct(outputs, y) if labels else support_query.loss(task.spec, outputs, y)

    @jax.jit
    def score(params, carry, batch):
        """(steps + 1, chunk) of the learner, (chunk,) of the baseline."""
        y_BQ = support_query.parts(batch)[3]
        outputs = learner.path(params, carry, batch, steps)[:, :, -y_BQ.shape[1]:]
        near = support_query.nearest_neighbour(task.spec, batch)
        near = (near == y_BQ).astype("float32") if labels else value(near, y_BQ)
        return jax.vmap(lambda out: value(out, y_BQ).mean(-1))(outputs), near.mean(-1)

    def run(params, carry) -> Result:
        both = [jax.device_get(score(params, carry, batch)) for batch in frozen]
        value_EI = np.concatenate([np.asarray(b[0], np.float64).T for b in both])
        near = float(np.concatenate([b[1] for b in both]).mean(dtype=np.float64))
        mean, half = statistics.interval(value_EI)
        median = np.median(value_EI, 0).tolist()  # steps beyond training's may run off on one episode of a thousand
        headline = {f"{name}_{n}": mean[n] for n in sorted({0, 1, steps})}
        headline |= {f"{name}_{steps}_ci95": half[-1], f"{name}_nearest_neighbour": near} | frozen.hashes
        headline |= {} if labels else {f"mse_{steps}_median": median[-1], f"mse_{steps}_worst": value_EI[:, -1].max()}
        rows = [[n, statistics.text(m, h, 4), f"{middle:.4f}"]
                for n, (m, h, middle) in enumerate(zip(mean, half, median, strict=True))]
        title = f"{facts['protocol']}: {name} on {episodes} frozen episodes"
        curve = {"title": facts["protocol"], "x": list(range(steps + 1)), "xlabel": "inner steps", "ylabel": name,
                 "series": [{"name": "learner", "y": mean, "ci95": half}], "levels": {"nearest neighbour": near}}
        table = {"title": title, "columns": ["steps", "learner", "median"], "rows": rows}
        return {"headline": headline, "tables": [table], "curves": [curve],
                "facts": {"seed": seed, "episodes": episodes, "mean": mean, "ci95": half, "median": median,
                          "episodes_sha256": frozen.digest}}

    return Evaluator(run)
