"""Linear functions to be regressed from a few points: y = (w . x) / sqrt(X) + noise, w ~ N(0, 1), x ~ N(0, 1).

The best predictor is known, ridge regression with penalty X * noise^2: the baseline among regression tasks.
"""

import jax

from metalearn.tasks import _ids
from metalearn.types import TaskDist
from metalearn.validate import nonnegative, positive


def make(*, features: int, shots: int, queries: int, noise: float, num_tasks: int, task_seed: int) -> TaskDist:
    """The distribution: `features` inputs, `shots` support and `queries` query points, `noise` std on all targets."""
    positive(features=features)
    nonnegative(noise=noise)

    def draw(key, T):
        key_w, key_x, key_noise = jax.random.split(key, 3)
        x_TX = jax.random.normal(key_x, (T, features))
        w_X = jax.random.normal(key_w, (features,))
        return x_TX, (x_TX @ w_X / features**0.5)[:, None] + noise * jax.random.normal(key_noise, (T, 1))

    return _ids.regression(draw, shots=shots, queries=queries, num_tasks=num_tasks, task_seed=task_seed,
                           features=features, protocol=f"linear in {features} dimensions")
