"""Sort-of-CLEVR (Santoro et al. 1706.01427), drawn on the device: six squares and circles, and a question.

Each object has a colour of its own; asked is about one alone (unary) or about it among the others (relational).

  tokens = patches of the image with their row and column, then the question: colour, kind, which of three
  unary        its shape? left or right half? upper or lower half?
  relational   shape of the nearest? shape of the farthest? how many have its shape (with itself)?

Answers: yes, no, square, circle, 1..6. Splits: train (either kind), unary, relational.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import multiple_of, positive, require

from . import _scenes

SPLITS = ("train", "unary", "relational")
COLOURS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.float32)
NUM, CELLS = len(COLOURS), 5  # objects lie in cells of a grid, so that none covers another


def make(*, size: int, patch: int, task_seed: int) -> TaskDist:
    """size, patch: pixels of a side of the image and of a token's part of it."""
    positive(patch=patch)
    require(size >= 8 * CELLS, "size", size, f"must be at least {8 * CELLS} pixels")
    multiple_of("patch", patch, size=size)
    y_YX, x_YX = _scenes.grid(size)
    cell = size / (CELLS + 1)  # a sixth is left to shift the whole grid by
    radius = 0.38 * cell

    def scene(key: Array, split: str):
        key_cells, key_shift, key_small, key_shape, key_ask, key_kind, key_which = jax.random.split(key, 7)
        cell_O = jax.random.permutation(key_cells, CELLS**2)[:NUM]
        small_O2 = _scenes.uniform(key_small, NUM, 2, low=-0.1, high=0.1)
        place_O2 = cell * (jnp.stack(jnp.divmod(cell_O, CELLS), -1) + 0.5 + small_O2)
        place_O2 += cell * _scenes.uniform(key_shift, 2)
        round_O = jax.random.bernoulli(key_shape, 0.5, (NUM,))
        down_OYX, right_OYX = (at - place_O2[:, i, None, None] for i, at in enumerate((y_YX, x_YX)))
        circle_OYX = down_OYX**2 + right_OYX**2 <= radius**2
        square_OYX = (abs(down_OYX) <= radius) & (abs(right_OYX) <= radius)  # with more ink than a circle's
        ink_OYX = jnp.where(round_O[:, None, None], circle_OYX, square_OYX)
        image_YXC = jnp.einsum("oyx,oc->yxc", ink_OYX.astype(jnp.float32), COLOURS)
        ask, which = jax.random.randint(key_ask, (), 0, NUM), jax.random.randint(key_which, (), 0, 3)
        kind = jax.random.bernoulli(key_kind).astype(int) if split == "train" else SPLITS.index(split) - 1
        apart_O = ((place_O2 - place_O2[ask]) ** 2).sum(-1)
        near, far = jnp.argmin(apart_O.at[ask].set(jnp.inf)), jnp.argmax(apart_O)
        shape = lambda o: 2 + round_O[o]
        yes = lambda true: 1 - true.astype(int)
        answers_KW = jnp.array([
            [shape(ask), yes(place_O2[ask, 1] < size / 2), yes(place_O2[ask, 0] < size / 2)],
            [shape(near), shape(far), 3 + (round_O == round_O[ask]).sum()]])
        question = jnp.concatenate([jnp.eye(NUM)[ask], jnp.eye(2)[kind], jnp.eye(3)[which]])
        return _scenes.read(image_YXC, patch, question), answers_KW[kind, which]

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        return _scenes.episodes(lambda key: scene(key, split), data, key, split, num)

    tokens = (size // patch) ** 2
    spec = EpisodeSpec(length=tokens + 1, features=3 * patch**2 + 2 * (size // patch) + NUM + 5, targets="classes",
                       outputs=4 + NUM, answers_early=True)
    return TaskDist(_scenes.root(task_seed), sample, SPLITS, spec, {"protocol": "Sort-of-CLEVR"})
