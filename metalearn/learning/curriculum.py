"""A level that rises by one when it is learned; the level is data, so nothing compiles again."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from metalearn.types import Array
from metalearn.validate import nonnegative, require

NATS = 0.6931471805599453  # per bit


class Options(NamedTuple):
    """What `make` was told, and the task's highest level."""

    start: int
    bits: float
    most: int


def make(spec, networks: int, *, start: int, bits: float) -> Options:
    """start: the first level, 0 for no curriculum; bits: the level rises when the loss per position falls below."""
    nonnegative(start=start, bits=bits)
    require(not start or networks == 1, "start", start, "must be 0 with several networks")
    require(not start or spec.max_level, "start", start, "must be 0: this task has no levels")
    require(start <= spec.max_level, "start", start, f"must be at most {spec.max_level}")
    return Options(start, bits, spec.max_level)


def initial(options: Options) -> dict:
    """What is carried: the level, the running loss in bits, and this batch's sums so far; {} without a curriculum."""
    if not options.start:
        return {}
    return {"level": jnp.int32(options.start), "bits": jnp.ones(()), "sums": jnp.zeros(2)}


def climb(options: Options, carried: dict, loss_TB: Array, mask_TB: Array, done: Array) -> dict:
    """After a segment; `done` when it was its batch's last. The running mean is over batches."""
    sums = carried["sums"] + jnp.stack([(loss_TB * mask_TB).sum() / NATS, mask_TB.sum()])
    bits = jnp.where(done, 0.9 * carried["bits"] + 0.1 * sums[0] / jnp.maximum(sums[1], 1.0), carried["bits"])
    solved = done & (bits < options.bits)
    level = jnp.minimum(carried["level"] + solved, options.most)
    return {"level": level, "bits": jnp.where(solved, 1.0, bits), "sums": jnp.where(done, 0.0, sums)}
