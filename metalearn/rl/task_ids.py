"""Task ids of simulators: training tasks count from 0, test tasks from `FIRST_EVAL_ID`, so they share none.

A task is an integer; its parameters are a function of (task seed, id) alone.
"""

import jax
import numpy as np

from metalearn.types import Array, Env

FIRST_EVAL_ID = 2**20


def task_ids(train: int, test: int) -> np.ndarray:
    """Ids of `train` training tasks, then of `test` test tasks."""
    return np.concatenate([np.arange(train), FIRST_EVAL_ID + np.arange(test)]).astype(np.int32)


def draw_tasks(env: Env, task_seed: int, ids: Array) -> Array:
    """param_BX of integer task ids."""
    key = jax.random.key(task_seed, impl="threefry2x32")
    return jax.vmap(lambda i: env.draw(jax.random.fold_in(key, i)))(ids)
