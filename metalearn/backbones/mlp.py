"""Hidden layers on flattened inputs."""

import flax.linen as nn
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import backbone
from metalearn.types import Array


class MLP(nn.Module):
    """Hidden layers with ReLU on flattened inputs; a context is a further input of the first one (as CAVIA has it)."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x_NX: Array, stats: backbone.Stats | None = None, context_C: Array | None = None):
        h = x_NX.reshape(x_NX.shape[0], -1)
        if context_C is not None:
            h = jnp.concatenate([h, jnp.broadcast_to(context_C, (h.shape[0], context_C.shape[0]))], -1)
        for width in self.widths:
            h = nn.relu(nn.Dense(width)(h))
        return h, []


def make(spec, *, widths: tuple[int, ...]) -> backbone.Backbone:
    """One hidden layer with ReLU for each entry of `widths`."""
    validate.require(min(widths, default=0) >= 1, "widths", widths, "must be widths of at least one layer")
    return backbone.of(MLP(tuple(widths)), widths[-1], "none")
