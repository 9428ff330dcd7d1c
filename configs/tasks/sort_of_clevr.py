"""Sort-of-CLEVR (Santoro et al. 1706.01427), drawn on the device: six squares and circles, and questions.

Each object has a colour of its own; asked is about one alone (unary) or about it among the others (relational).

  tokens = patches of the image with their row and column, then questions: colour, kind, which of three
  unary        its shape? left or right half? upper or lower half?
  relational   shape of the nearest? shape of the farthest? how many have its shape (with itself)?

Answers: yes, no, square, circle, 1..6. Splits: train (either kind), unary, relational.
Other than there, every object lies within one patch: to see is easy, and what is measured is to relate.
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
NUM = len(COLOURS)


def make(*, size: int, patch: int, questions: int, task_seed: int) -> TaskDist:
    """size, patch: pixels of a side of the image and of a token's part of it. questions: about each image."""
    positive(questions=questions)
    require(patch >= 6, "patch", patch, "must be at least 6 pixels, or squares look like circles")
    multiple_of("patch", patch, size=size)
    side = size // patch
    require(side >= 3, "size", size, f"must be at least 3 patches of {patch} pixels")
    y_YX, x_YX = _scenes.grid(size)
    radius = 0.38 * patch

    def draw(key: Array):
        """(image, places, round): of the objects, by colour."""
        key_cells, key_small, key_shape = jax.random.split(key, 3)
        cell_O = jax.random.permutation(key_cells, side**2)[:NUM]
        small_O2 = _scenes.uniform(key_small, NUM, 2, low=-0.12, high=0.12)  # no further than its patch
        place_O2 = patch * (jnp.stack(jnp.divmod(cell_O, side), -1) + 0.5 + small_O2)
        round_O = jax.random.bernoulli(key_shape, 0.5, (NUM,))
        down_OYX, right_OYX = (at - place_O2[:, i, None, None] for i, at in enumerate((y_YX, x_YX)))
        circle_OYX = down_OYX**2 + right_OYX**2 <= radius**2
        square_OYX = (abs(down_OYX) <= radius) & (abs(right_OYX) <= radius)  # with more ink than a circle's
        ink_OYX = jnp.where(round_O[:, None, None], circle_OYX, square_OYX)
        return jnp.einsum("oyx,oc->yxc", ink_OYX.astype(jnp.float32), COLOURS), place_O2, round_O

    def ask(key: Array, place_O2: Array, round_O: Array, split: str):
        """(question, answer)."""
        key_ask, key_kind, key_which = jax.random.split(key, 3)
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
        return question, answers_KW[kind, which]

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        def scene(key: Array):
            key_draw, key_ask = jax.random.split(key)
            image_YXC, place_O2, round_O = draw(key_draw)
            about = jax.vmap(lambda key: ask(key, place_O2, round_O, split))
            question_NQ, label_N = about(jax.random.split(key_ask, questions))
            return _scenes.read(image_YXC, patch, question_NQ), label_N

        return _scenes.episodes(scene, data, key, split, num)

    spec = EpisodeSpec(length=side**2 + questions, features=3 * patch**2 + 2 * side + NUM + 5, targets="classes",
                       outputs=4 + NUM, answers_early=True)
    return TaskDist(_scenes.root(task_seed), sample, SPLITS, spec, {"protocol": "Sort-of-CLEVR"})
