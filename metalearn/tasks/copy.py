"""Copy: read n random rows of bits and a delimiter, then say the rows again (Neural Turing Machines, section 4.1).

  x  = [r1 0] [r2 0] [0 1] [0 0] [0 0]      n = 2 rows of `bits` bits, the last feature is the delimiter
  y  =   -      -      -    r1    r2        only these positions count

`repeats` above 1 makes repeat-copy: the delimiter carries how often (divided by `repeats`), the rows are said so often.

Splits: `train` draws n from 1..difficulty (or n = difficulty with `exact`); `exact` has n = difficulty in room for
twice `max_length`, so that one compiled program measures every length. It is data: a curriculum never recompiles.
"""

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import positive


def make(*, bits: int, max_length: int, repeats: int, exact: bool, task_seed: int) -> TaskDist:
    """bits: features of a row; max_length: longest n in training; repeats: most repetitions (1: copy);
    exact: training episodes all have n = difficulty."""
    positive(bits=bits, max_length=max_length, repeats=repeats)
    data = _ids.graded(task_seed, max_length)

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        most = max_length * (1 if split == "train" else 2)
        T = most + 1 + most * repeats
        difficulty = data["difficulty"]

        def episode(key):
            key_rows, key_length, key_repeats = jax.random.split(key, 3)
            drawn = jax.random.randint(key_length, (), 1, difficulty + 1)
            n = difficulty if exact or split == "exact" else drawn
            times = jax.random.randint(key_repeats, (), 1, repeats + 1)
            rows_NY = jax.random.bernoulli(key_rows, 0.5, (most, bits)).astype(jnp.float32)
            t = jnp.arange(T)
            shown_TY = jnp.where((t < n)[:, None], rows_NY[jnp.minimum(t, most - 1)], 0.0)
            delimiter_T = (t == n) * times / repeats
            said = t - n - 1
            mask_T = ((said >= 0) & (said < n * times)).astype(jnp.float32)
            y_TY = rows_NY[jnp.where(mask_T > 0, said % n, 0)] * mask_T[:, None]
            return jnp.concatenate([shown_TY, delimiter_T[:, None]], -1), y_TY, mask_T

        return _ids.episodes(episode, data, key, split, num)

    spec = EpisodeSpec(length=max_length * (1 + repeats) + 1, features=bits + 1, targets="bits", outputs=bits,
                       max_difficulty=max_length, longest=2 * max_length)
    return TaskDist(data, sample, _ids.SPLITS, spec, {})
