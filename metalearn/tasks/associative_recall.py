"""Associative recall: read a list of items, then one of them again, and say the item after it (NTM, section 4.3).

An item is `rows` rows of `bits` bits behind an item delimiter; a query delimiter brings the item asked for:

  x  = [d i1] [d i2] ... [d in] [q ik] then `rows` empty steps, where the rows of i(k+1) are to be said.

Splits: `train` draws n from 2..difficulty (training: `max_items`); `exact` has n = difficulty in room for twice that.
"""

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import positive, require


def make(*, bits: int, rows: int, max_items: int, task_seed: int) -> TaskDist:
    positive(bits=bits, rows=rows)
    require(max_items >= 2, "max_items", max_items, "must be at least 2")
    data = _ids.graded(task_seed, max_items)
    step = rows + 1

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        most = max_items * (1 if split == "train" else 2)
        T = (most + 1) * step + rows
        difficulty = data["difficulty"]

        def episode(key):
            key_items, key_number, key_query = jax.random.split(key, 3)
            drawn = jax.random.randint(key_number, (), 2, difficulty + 1)
            n = difficulty if split == "exact" else drawn
            asked = jax.random.randint(key_query, (), 0, n - 1)
            items_NSY = jax.random.bernoulli(key_items, 0.5, (most, rows, bits)).astype(jnp.float32)
            t = jnp.arange(T)
            item, row = t // step, t % step - 1
            which = jnp.where(item == n, asked, jnp.minimum(item, most - 1))
            shown_TY = jnp.where(((item <= n) & (row >= 0))[:, None], items_NSY[which, jnp.maximum(row, 0)], 0.0)
            marks_T2 = jnp.stack([(row < 0) & (item < n), (row < 0) & (item == n)], -1).astype(jnp.float32)
            said = t - (n + 1) * step
            mask_T = ((said >= 0) & (said < rows)).astype(jnp.float32)
            y_TY = items_NSY[asked + 1, jnp.clip(said, 0, rows - 1)] * mask_T[:, None]
            return jnp.concatenate([shown_TY, marks_T2 * (t < (n + 1) * step)[:, None]], -1), y_TY, mask_T

        return _ids.episodes(episode, data, key, split, num)

    spec = EpisodeSpec(length=(max_items + 1) * step + rows, features=bits + 2, targets="bits", outputs=bits,
                       max_difficulty=max_items, longest=2 * max_items)
    return TaskDist(data, sample, _ids.SPLITS, spec, {})
