"""What tasks with two ranges of ids share: the draw of them; and, of graded difficulty, data and record."""

import jax
import numpy as np

from metalearn.types import Array

SPLITS = ("train", "exact")


def initial(task_seed: int, difficulty: int) -> dict:
    """The data of a task of graded difficulty."""
    return {"task_seed": np.int32(task_seed), "difficulty": np.int32(difficulty)}


def draw(data, key: Array, split: str, num: int) -> tuple[Array, Array]:
    """(task_B, root): `num` task ids of a split, disjoint between splits, and the key that task keys come from."""
    task_B = jax.random.randint(key, (num,), 0, 2**30) + (0 if split == "train" else 2**30)
    return task_B, jax.random.key(data["task_seed"], impl="threefry2x32")
