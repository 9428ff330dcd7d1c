"""Multi-query associative recall (Arora et al. 2312.04927): pairs of a key and a value, then the keys again, shuffled;
at each the value that came with it is to be said.

  tokens = k1 v1 k2 v2 ... kn vn, then the n keys in another order, then blanks; keys are distinct, values are not.

Splits: `train` draws n from 1..difficulty (training: `max_pairs`); `exact` has n = difficulty in room for twice that.
"""

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import positive, require


def make(*, keys: int, values: int, max_pairs: int, task_seed: int) -> TaskDist:
    """keys, values: words of each kind, one-hot side by side; keys enough for twice max_pairs."""
    positive(max_pairs=max_pairs, values=values)
    require(keys >= 2 * max_pairs, "keys", keys, f"must be at least 2 max_pairs = {2 * max_pairs}: they are distinct")
    data = _ids.graded(task_seed, max_pairs)

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        most = max_pairs * (1 if split == "train" else 2)

        def episode(key):
            key_keys, key_values, key_number, key_order = jax.random.split(key, 4)
            n = jax.random.randint(key_number, (), 1, data["difficulty"] + 1)
            n = data["difficulty"] if split == "exact" else n
            k_N = jax.random.permutation(key_keys, keys)[:most]
            v_N = jax.random.randint(key_values, (most,), 0, values)
            order_N = jnp.argsort(jax.random.uniform(key_order, (most,)) + jnp.arange(most) // n)  # of the first n
            t = jnp.arange(3 * most)
            pair, asked = jnp.minimum(t // 2, most - 1), order_N[jnp.clip(t - 2 * n, 0, most - 1)]
            shown_T = jnp.where(t >= 2 * n, k_N[asked], jnp.where(t % 2 == 0, k_N[pair], keys + v_N[pair]))
            on_T = (t < 3 * n)[:, None]
            mask_T = ((t >= 2 * n) & (t < 3 * n)).astype(jnp.float32)
            return jax.nn.one_hot(shown_T, keys + values) * on_T, v_N[asked], mask_T

        return _ids.episodes(episode, data, key, split, num)

    spec = EpisodeSpec(length=3 * max_pairs, features=keys + values, targets="classes", outputs=values,
                       max_difficulty=max_pairs, longest=2 * max_pairs, answers_early=True)
    return TaskDist(data, sample, _ids.SPLITS, spec, {})
