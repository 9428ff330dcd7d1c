"""Relation calculation (2103.01197): three spots in an image, and whether their triangle is equilateral.

  tokens = patches of the image with their row and column; the answer is asked for at the last of them

Half of all triangles are equilateral; of the others no side may be within a tenth of another. Splits: train, test.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import multiple_of, positive, require

from . import _scenes

SPLITS = ("train", "test")
TRIES = 32  # random triangles, of which the first that is far from equilateral counts


def make(*, size: int, patch: int, task_seed: int) -> TaskDist:
    """size, patch: pixels of a side of the image and of a token's part of it."""
    positive(patch=patch)
    require(size >= 16, "size", size, "must be at least 16 pixels")
    multiple_of("patch", patch, size=size)
    y_YX, x_YX = _scenes.grid(size)

    def scene(key: Array):
        key_equal, key_turn, key_long, key_middle, key_free = jax.random.split(key, 5)
        equal = jax.random.bernoulli(key_equal)
        turn = _scenes.uniform(key_turn, high=2 * np.pi / 3) + 2 * np.pi / 3 * np.arange(3)
        reach = size * _scenes.uniform(key_long, low=0.2, high=0.4)
        middle_2 = reach + 1 + (size - 2 * reach - 2) * _scenes.uniform(key_middle, 2)
        even_32 = middle_2 + reach * jnp.stack([jnp.sin(turn), jnp.cos(turn)], -1)
        free_N32 = _scenes.uniform(key_free, TRIES, 3, 2, low=1.0, high=size - 1.0)
        sides_N3 = jnp.linalg.norm(free_N32 - jnp.roll(free_N32, 1, 1), axis=-1)
        short_N3 = sides_N3 / jnp.roll(sides_N3, 1, 1)
        good_N = (abs(jnp.log(short_N3)) > 0.1).all(-1) & (sides_N3 > 0.25 * size).all(-1)
        point_32 = jnp.where(equal, even_32, free_N32[jnp.argmax(good_N)])
        apart_3YX = (y_YX - point_32[:, :1, None]) ** 2 + (x_YX - point_32[:, 1:, None]) ** 2
        return _scenes.read(jnp.exp(-apart_3YX / 2).sum(0)[..., None] * 2, patch), equal.astype(int)[None]

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        return _scenes.episodes(scene, data, key, split, num)

    tokens = (size // patch) ** 2
    spec = EpisodeSpec(length=tokens, features=patch**2 + 2 * (size // patch), targets="classes", outputs=2,
                       answers_early=True)
    return TaskDist(_scenes.root(task_seed), sample, SPLITS, spec, {"protocol": "equilateral or not"})
