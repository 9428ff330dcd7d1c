"""What tasks that are functions of an id share: ranges of ids, and whole tasks around a function that draws one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import positive, require

FIRST_EVAL_ID = 2**30  # ids from here on are never meta-trained on
SPLITS = ("train", "exact")  # of tasks of graded difficulty
# the first task id of each split of a regression task
FIRST = {"train": 0, "val": FIRST_EVAL_ID, "test": FIRST_EVAL_ID + FIRST_EVAL_ID // 2}


def limit(num_tasks: int) -> np.int32:
    """The first id that is not trained on; `num_tasks` 0 is unlimited (2**30 ids)."""
    require(0 <= num_tasks <= FIRST_EVAL_ID, "num_tasks", num_tasks,
            f"must lie between 0 (unlimited) and {FIRST_EVAL_ID}")
    return np.int32(num_tasks or FIRST_EVAL_ID)


def draw(data, key: Array, split: str, num: int) -> tuple[Array, Array]:
    """(task_B, root): `num` task ids of a split, disjoint between splits, and the key that task keys come from."""
    task_B = jax.random.randint(key, (num,), 0, FIRST_EVAL_ID) + (0 if split == "train" else FIRST_EVAL_ID)
    return task_B, jax.random.key(data["task_seed"], impl="threefry2x32")


def graded(task_seed: int, difficulty: int) -> dict:
    """The data of a task of graded difficulty."""
    return {"task_seed": np.int32(task_seed), "difficulty": np.int32(difficulty)}


def episodes(episode: Callable, data, key: Array, split: str, num: int) -> Episodes:
    """`num` episodes of such a task; `episode(key of the task) -> (x_TX, y_TY, mask_T)`."""
    task_B, root = draw(data, key, split, num)
    x_BTX, y_BTY, mask_BT = jax.vmap(lambda task: episode(jax.random.fold_in(root, task)))(task_B)
    return Episodes(x_BTX, y_BTY, mask_BT, task_B, jnp.full(mask_BT.shape, -1, jnp.int32))


def regression(draw: Callable, *, shots: int, queries: int, num_tasks: int, task_seed: int, features: int,
               protocol: str) -> TaskDist:
    """`draw(key, T) -> (x_TX, y_TY)` one task and its points, from the task's own key; support first.

    num_tasks  meta-training tasks; 0 is unlimited (2**30 ids)
    """
    positive(shots=shots, queries=queries)
    data = {"num_tasks": limit(num_tasks), "task_seed": np.int32(task_seed)}
    T = shots + queries

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        most = data["num_tasks"] if split == "train" else FIRST_EVAL_ID // 2
        task_B = FIRST[split] + jax.random.randint(key, (num,), 0, most)
        base = jax.random.key(data["task_seed"], impl="threefry2x32")
        x_BTX, y_BTY = jax.vmap(lambda task: draw(jax.random.fold_in(base, task), T))(task_B)
        mask_BT = jnp.broadcast_to(jnp.arange(T) >= shots, (num, T)).astype(jnp.float32)
        return Episodes(x_BTX, y_BTY, mask_BT, task_B, jnp.full((num, T), -1, jnp.int32), support=shots)

    spec = EpisodeSpec(length=T, features=features, targets="real", outputs=1, shots=shots, queries=queries)
    facts = {"protocol": f"{protocol}, {shots} shots", "num_tasks": num_tasks}
    return TaskDist(data, sample, tuple(FIRST), spec, facts, {"num_tasks": limit})
