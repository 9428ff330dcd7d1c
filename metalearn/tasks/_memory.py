"""What tasks with levels draw first: who is asked, and how long each one's list is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array
from metalearn.validate import require

SPLITS = ("train", "exact")


def start(task_seed: int, level: int) -> dict:
    """The data of such a task; the level may be one for each copy of a learner."""
    require(0 <= task_seed < 2**31, "task_seed", task_seed, "must lie between 0 and 2**31 - 1")
    return {"task_seed": np.int32(task_seed), "level": np.array([level], np.int32)}


def draw(data, key: Array, split: str, num: int) -> tuple[Array, Array, Array]:
    """(task_B, level_B, root): `num` task ids of a split, disjoint between splits; the level of each, from
    `data["level"]` (R,), the first num / R tasks at the first level and so on; and the key that task keys come from."""
    task_B = jax.random.randint(key, (num,), 0, 2**30) + (0 if split == "train" else 2**30)
    level_R = data["level"]
    level_B = jnp.repeat(level_R, num // level_R.shape[0], total_repeat_length=num)
    return task_B, level_B, jax.random.key(data["task_seed"], impl="threefry2x32")
