"""Addition by counting (2503.01906): a number a is shown, then b marks, one a step; in the end a + b is to be said.

  tokens = [a] [mark] .. [mark] [asked], and before a as many blanks as fill the episode, so that the answer comes last

Splits: train draws a and b below `trained`, but b never half of it, and no pair with a = `task_seed` and
b = `task_seed` // 3 modulo 3; `held_out` has those pairs alone; `between` as many marks as half of `trained`, where
training has fewer and more; `more` from `trained` on, more than any in training, sums being at most as large as there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import require

SPLITS = ("train", "held_out", "between", "more")


def make(*, trained: int, task_seed: int) -> TaskDist:
    """trained: a and b are below it in training; no sum is above twice that less two."""
    require(trained >= 6, "trained", trained, "must be at least 6, for some of every kind")
    numbers, length = 2 * trained - 1, 2 * trained

    def allowed(split: str, task_seed: Array) -> Array:
        """(a, b) that the split draws, each as often."""
        a_N1, b_1N = jnp.arange(trained)[:, None], jnp.arange(trained)[None]
        between_NN = jnp.broadcast_to(b_1N == trained // 2, (trained, trained))
        pair_NN = (a_N1 % 3 == task_seed % 3) & (b_1N % 3 == task_seed // 3 % 3)
        return {"train": ~pair_NN & ~between_NN, "held_out": pair_NN & ~between_NN, "between": between_NN}[split]

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        def episode(key):
            key_a, key_b = jax.random.split(key)
            if split != "more":
                kept_N = jnp.log(allowed(split, data["task_seed"]).astype(jnp.float32)).ravel()
                a, b = jnp.divmod(jax.random.categorical(key_a, kept_N), trained)
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
