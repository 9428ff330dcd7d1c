"""What tasks of drawn scenes share: an image as tokens, and labelled episodes whose last token is answered."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import tokens
from metalearn.tasks import _ids
from metalearn.types import Array, Episodes


def patches(image_YXC: Array, side: int) -> Array:
    """(patches, side * side * C), row after row."""
    Y, X, C = image_YXC.shape
    cut = image_YXC.reshape(Y // side, side, X // side, side, C).swapaxes(1, 2)
    return cut.reshape(-1, side * side * C)


def read(image_YXC: Array, side: int, questions_NQ: Array | None = None) -> Array:
    """(T, X): a token for every patch with its row and column, then the questions; parts have equal power."""
    part_NP = patches(image_YXC, side)
    rows, columns = image_YXC.shape[0] // side, image_YXC.shape[1] // side
    row_N, column_N = np.divmod(np.arange(rows * columns), columns)
    place_NR, place_NC = jnp.eye(rows)[row_N], jnp.eye(columns)[column_N]
    # a tenth of a scene is ink
    parts, powers = [part_NP, place_NR, place_NC], [part_NP.shape[1] * 0.1, 1.0, 1.0]
    if questions_NQ is None:
        return tokens.join(parts, powers)
    parts = [jnp.pad(part, ((0, len(questions_NQ)), (0, 0))) for part in parts]
    asked_TQ = jnp.pad(questions_NQ, ((rows * columns, 0), (0, 0)))
    return tokens.join([*parts, asked_TQ], [*powers, 3.0])


def episodes(scene: Callable, data, key: Array, split: str, num: int) -> Episodes:
    """`scene(key of the task) -> (x_TX, label_N)`; answers are asked for at the last N tokens."""

    def episode(key):
        x_TX, label_N = scene(key)
        before = len(x_TX) - len(label_N), 0
        return x_TX, jnp.pad(label_N, before), jnp.pad(jnp.ones(len(label_N)), before)

    return _ids.episodes(episode, data, key, split, num)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(y_YX, x_YX) of the pixels' centres."""
    at = np.arange(size) + 0.5
    return at[:, None], at[None]


def root(task_seed: int) -> dict:
    return {"task_seed": np.int32(task_seed)}


def uniform(key: Array, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
    return jax.random.uniform(key, shape, minval=low, maxval=high)
