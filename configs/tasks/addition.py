"""Addition by counting (2503.01906): a number a is shown, then b marks, one a step; in the end a + b is to be said.

  tokens = [a] [mark] .. [mark] [asked], and before a as many blanks as fill the episode, so that the answer comes last

Splits: train draws a and b below `trained`, but no pair of two multiples of three; `held_out` has those pairs alone;
`more` has b from `trained` on, more marks than any in training, with sums that are as large as training's at most.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import require

SPLITS = ("train", "held_out", "more")


def make(*, trained: int, task_seed: int) -> TaskDist:
    """trained: a and b are below it in training; no sum is above twice that less two."""
    require(trained >= 3, "trained", trained, "must be at least 3")
    numbers, length = 2 * trained - 1, 2 * trained

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        def episode(key):
            key_a, key_b = jax.random.split(key)
            a, b = (jax.random.randint(k, (), 0, trained) for k in (key_a, key_b))
            if split == "train":
                b = jnp.where((a % 3 == 0) & (b % 3 == 0), jnp.where(b + 1 < trained, b + 1, b - 1), b)
            elif split == "held_out":
                a, b = a - a % 3, b - b % 3
            else:
                b = jax.random.randint(key_b, (), trained, numbers)
                a = jax.random.randint(key_a, (), 0, numbers - b)
            t = jnp.arange(length) - (length - b - 2)  # 0 where a is shown
            shown_TN = jax.nn.one_hot(jnp.where(t == 0, a, -1), numbers)
            marks_T2 = jnp.stack([(t > 0) & (t <= b), t == b + 1], -1)
            x_TX = jnp.concatenate([shown_TN, marks_T2], -1)
            return x_TX, jnp.full(length, a + b), (t == b + 1).astype(jnp.float32)

        return _ids.episodes(episode, data, key, split, num)

    spec = EpisodeSpec(length=length, features=numbers + 2, targets="classes", outputs=numbers, answers_early=True)
    return TaskDist(_ids.graded(task_seed, 0), sample, SPLITS, spec, {"protocol": f"a + b, each below {trained}"})
