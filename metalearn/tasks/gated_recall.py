"""Gated recall with rare symbols: remember the marked symbol of step 0 through distractors, answer at the end.

At t = 0 a symbol comes with a marker (the last input feature); after it random symbols without one; the label is the
first symbol and only the last position counts. Half of the symbols are common, the other half rare: together they make
`rare_frac` of the training episodes, and half of the split `balanced`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import fraction, require

SPLITS = ("train", "balanced")


def make(*, symbols: int, length: int, rare_frac: float, task_seed: int) -> TaskDist:
    """symbols: V, even; length: L, steps of an episode; rare_frac: chance that an episode's symbol is a rare one."""
    require(symbols >= 2 and symbols % 2 == 0, "symbols", symbols, "must be even and at least 2")
    require(length >= 2, "length", length, "must be at least 2")
    data = {"task_seed": np.int32(task_seed), "rare_frac": _rare_frac(rare_frac)}

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        task_B, root = _ids.draw(data, key, split, num)
        rare_frac = data["rare_frac"] if split == "train" else 0.5

        def episode(task):
            key_rare, key_symbol, key_noise = jax.random.split(jax.random.fold_in(root, task), 3)
            rare = jax.random.uniform(key_rare) < rare_frac
            symbol = jax.random.randint(key_symbol, (), 0, symbols // 2) + rare * (symbols // 2)
            symbol_T = jax.random.randint(key_noise, (length,), 0, symbols).at[0].set(symbol)
            marker_T = (jnp.arange(length) == 0).astype(jnp.float32)
            return jnp.concatenate([jax.nn.one_hot(symbol_T, symbols), marker_T[:, None]], -1), symbol

        x_BTX, symbol_B = jax.vmap(episode)(task_B)
        y_BT = jnp.broadcast_to(symbol_B[:, None], (num, length))
        mask_BT = jnp.zeros((num, length)).at[:, -1].set(1.0)
        return Episodes(x_BTX, y_BT, mask_BT, task_B, jnp.full((num, length), -1, jnp.int32), ways=symbols)

    spec = EpisodeSpec(length=length, features=symbols + 1, targets="classes", outputs=symbols, rare_from=symbols // 2,
                       answers_early=True)
    return TaskDist(data, sample, SPLITS, spec, {}, {"rare_frac": _rare_frac})


def _rare_frac(rare_frac: float) -> np.float32:
    fraction(rare_frac=rare_frac)
    return np.float32(rare_frac)
