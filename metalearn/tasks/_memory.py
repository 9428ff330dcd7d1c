"""What tasks with levels draw first: who is asked, and how long each one's list is."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn.types import Array

SPLITS = ("train", "exact")


def draw(data, key: Array, split: str, num: int) -> tuple[Array, Array, Array]:
    """(task_B, level_B, root): `num` task ids of a split, disjoint between splits; the level of each, from
    `data["level"]` (R,), the first num / R tasks at the first level and so on; and the key that task keys come from."""
    task_B = jax.random.randint(key, (num,), 0, 2**30) + (0 if split == "train" else 2**30)
    level_R = data["level"]
    level_B = jnp.repeat(level_R, num // level_R.shape[0], total_repeat_length=num)
    return task_B, level_B, jax.random.key(data["task_seed"], impl="threefry2x32")
