"""What tasks with two ranges of ids share: the draw of them; and, of graded difficulty, data and record."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Episodes

SPLITS = ("train", "exact")


def initial(task_seed: int, difficulty: int) -> dict:
    """The data of a task of graded difficulty."""
    return {"task_seed": np.int32(task_seed), "difficulty": np.int32(difficulty)}


def episodes(episode: Callable, data, key: Array, split: str, num: int) -> Episodes:
    """`num` episodes of such a task; `episode(key of the task) -> (x_TX, y_TY, mask_T)`."""
    task_B, root = draw(data, key, split, num)
    x_BTX, y_BTY, mask_BT = jax.vmap(lambda task: episode(jax.random.fold_in(root, task)))(task_B)
    return Episodes(x_BTX, y_BTY, mask_BT, task_B, jnp.full(mask_BT.shape, -1, jnp.int32))


def draw(data, key: Array, split: str, num: int) -> tuple[Array, Array]:
    """(task_B, root): `num` task ids of a split, disjoint between splits, and the key that task keys come from."""
    task_B = jax.random.randint(key, (num,), 0, 2**30) + (0 if split == "train" else 2**30)
    return task_B, jax.random.key(data["task_seed"], impl="threefry2x32")
