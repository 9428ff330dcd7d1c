"""A difficulty that rises by one when it is learned; it is data, so nothing compiles again."""

from typing import NamedTuple

import jax.numpy as jnp

from metalearn.types import Array
from metalearn.validate import nonnegative, require

NATS = 0.6931471805599453  # per bit


class Options(NamedTuple):
    """What `make` was told, and the task's highest difficulty; `initial` 0 is no curriculum."""

    initial: int
    bits: float
    highest: int


def make(spec, networks: int, *, initial_difficulty: int, bits: float) -> Options:
    """initial_difficulty: where training begins, 0 for no curriculum; bits: it rises when the loss per position falls
    below."""
    initial, highest = initial_difficulty, spec.max_difficulty
    nonnegative(initial_difficulty=initial, bits=bits)
    check = lambda ok, allowed: require(ok, "initial_difficulty", initial, allowed)
    check(not initial or networks == 1, "must be 0 with several networks")
    check(not initial or highest, "must be 0: this task has one difficulty only")
    check(initial <= highest, f"must be at most {highest}")
    return Options(initial, bits, highest)


def initial(options: Options) -> dict:
    """What is carried: the difficulty, the running loss in bits, this batch's sums so far; {} without a curriculum."""
    if not options.initial:
        return {}
    return {"difficulty": jnp.int32(options.initial), "bits": jnp.ones(()), "sums": jnp.zeros(2)}


def climb(options: Options, carried: dict, loss_TB: Array, mask_TB: Array, done: Array) -> dict:
    """After a segment; `done` when it was its batch's last. The running mean is over batches."""
    sums = carried["sums"] + jnp.stack([(loss_TB * mask_TB).sum() / NATS, mask_TB.sum()])
    bits = jnp.where(done, 0.9 * carried["bits"] + 0.1 * sums[0] / jnp.maximum(sums[1], 1.0), carried["bits"])
    solved = done & (bits < options.bits)
    difficulty = jnp.minimum(carried["difficulty"] + solved, options.highest)
    return {"difficulty": difficulty, "bits": jnp.where(solved, 1.0, bits), "sums": jnp.where(done, 0.0, sums)}
