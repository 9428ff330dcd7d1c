"""Predicting the next character of English text that ships with Python: the help topics of its standard library.

Splits: train draws windows from the first nine tenths, test from the last. The text is that of this Python version; its
SHA-256 is a fact of the task.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import require

SPLITS = ("train", "test")
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))


def make(*, length: int, task_seed: int) -> TaskDist:
    """length: characters of a window, of each of which the next is asked for; another `task_seed` starts the split of
    the text elsewhere."""
    code_N = text()
    require(1 <= length < len(code_N) // 10, "length", length, f"must lie between 1 and {len(code_N) // 10 - 1}")
    code_N = np.roll(code_N, -(task_seed * 7919 % len(code_N)))
    cut = len(code_N) * 9 // 10
    data = {"train": code_N[:cut], "test": code_N[cut:]}

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        start_B = jax.random.randint(key, (num,), 0, len(data[split]) - length)
        window = data[split][start_B[:, None] + jnp.arange(length + 1)].astype(jnp.int32)
        x_BTX = jax.nn.one_hot(window[:, :-1], len(CHARACTERS))
        place_BT = start_B[:, None] + jnp.arange(length)
        return Episodes(x_BTX, window[:, 1:], jnp.ones((num, length)), start_B, place_BT)

    spec = EpisodeSpec(length=length, features=len(CHARACTERS), targets="classes", outputs=len(CHARACTERS),
                       answers_early=True)
    return TaskDist(data, sample, SPLITS, spec, {"protocol": "next character of Python's help topics",
                                                 "sha256": hashlib.sha256(code_N.tobytes()).hexdigest()})


@functools.cache
def text() -> np.ndarray:
    """(N,) numbers of characters; what is not in CHARACTERS is left out."""
    from pydoc_data.topics import topics

    number = {c: i for i, c in enumerate(CHARACTERS)}
    return np.array([number[c] for name in sorted(topics) for c in topics[name] if c in number], np.uint8)
