"""What tasks of graded difficulty share: their data, and the first draw, of task ids."""

import jax
import numpy as np

from metalearn.types import Array
from metalearn.validate import require

SPLITS = ("train", "exact")


def initial(task_seed: int, difficulty: int) -> dict:
    """The data of such a task."""
    require(0 <= task_seed < 2**31, "task_seed", task_seed, "must lie between 0 and 2**31 - 1")
    return {"task_seed": np.int32(task_seed), "difficulty": np.int32(difficulty)}


def draw(data, key: Array, split: str, num: int) -> tuple[Array, Array]:
    """(task_B, root): `num` task ids of a split, disjoint between splits, and the key that task keys come from."""
    task_B = jax.random.randint(key, (num,), 0, 2**30) + (0 if split == "train" else 2**30)
    return task_B, jax.random.key(data["task_seed"], impl="threefry2x32")
