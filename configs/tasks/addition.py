"""Addition by counting (2503.01906): a number a is shown, then b marks, one a step; in the end a + b is to be said.

  tokens = [a] [mark] .. [mark] [asked], and before a as many blanks as fill the episode, so that the answer comes last

Splits: train draws a and b below `trained`, but no pair with a = `task_seed` and b = `task_seed` // 3 modulo 3;
`held_out` has those pairs alone; `more` has b from `trained` on, more marks than any in training, with sums that are as
large as training's at most.
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
            of_a, of_b = data["task_seed"] % 3, data["task_seed"] // 3 % 3
            if split == "train":
                out = (a % 3 == of_a) & (b % 3 == of_b)
                b = jnp.where(out, jnp.where(b + 1 < trained, b + 1, b - 1), b)
            elif split == "held_out":
                a, b = (3 * jax.random.randint(k, (), 0, (trained - of + 2) // 3) + of
                        for k, of in ((key_a, of_a), (key_b, of_b)))
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
