"""What the regression tasks share: ids, splits and the record, around a function that draws one episode."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.tasks import _ids
from metalearn.tasks._ids import FIRST_EVAL_ID
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import positive

# the first task id of each split
FIRST = {"train": 0, "val": FIRST_EVAL_ID, "test": FIRST_EVAL_ID + FIRST_EVAL_ID // 2}


def distribution(draw: Callable, *, shots: int, queries: int, num_tasks: int, task_seed: int, features: int,
                 protocol: str) -> TaskDist:
    """`draw(key, T) -> (x_TX, y_TY)` one task and its points, from the task's own key; support first.

    num_tasks  meta-training tasks; 0 is unlimited (2**30 ids)
    """
    positive(shots=shots, queries=queries)
    data = {"num_tasks": _ids.limit(num_tasks), "task_seed": np.int32(task_seed)}
    T = shots + queries

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        limit = data["num_tasks"] if split == "train" else FIRST_EVAL_ID // 2
        task_B = FIRST[split] + jax.random.randint(key, (num,), 0, limit)
        base = jax.random.key(data["task_seed"], impl="threefry2x32")
        x_BTX, y_BTY = jax.vmap(lambda task: draw(jax.random.fold_in(base, task), T))(task_B)
        mask_BT = jnp.broadcast_to(jnp.arange(T) >= shots, (num, T)).astype(jnp.float32)
        return Episodes(x_BTX, y_BTY, mask_BT, task_B, jnp.full((num, T), -1, jnp.int32), support=shots)

    spec = EpisodeSpec(length=T, features=features, targets="real", outputs=1, shots=shots, queries=queries)
    facts = {"protocol": f"{protocol}, {shots} shots", "num_tasks": num_tasks}
    return TaskDist(data, sample, tuple(FIRST), spec, facts, {"num_tasks": _ids.limit})
