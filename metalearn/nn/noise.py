"""Random bits at the price of a few integer operations each, where a program needs millions in every step.

A counter goes through two rounds of a 32-bit mixer (C. Wellons' lowbias32), each keyed by a word that comes from the
key by threefry. The mixer is a bijection with every bit of the output depending on every bit of the input; it is no
cipher. Threefry's 13 times as many operations were a quarter of an update that draws projections.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.types import Array


def bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform uint32 of `shape` (fewer than 2**32 of them), a function of the key."""
    first, second = jax.random.bits(key, (2,))
    counter = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _mixed(_mixed(counter ^ first) + second)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def binomial(key: Array, shape: tuple[int, ...]) -> Array:
    """Nearly normal f32: the number of ones among 32 fair bits, to zero mean and unit spread. 33 values, within 5.7."""
    ones = jax.lax.population_count(bits(key, shape)).astype(jnp.int32)
    return (ones - 16).astype(jnp.float32) * 8**-0.5


class Dropout(nn.Module):
    """Zeroes a fraction `rate` of the entries and scales the others up; the identity where `deterministic`."""

    rate: float
    deterministic: bool

    def __call__(self, x: Array) -> Array:
        if self.deterministic or not self.rate:
            return x
        kept = bits(self.make_rng("dropout"), x.shape) >= jnp.uint32(self.rate * 2**32)
        return jnp.where(kept, x / (1 - self.rate), 0.0)
