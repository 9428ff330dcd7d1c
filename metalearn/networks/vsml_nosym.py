"""The grid of VSML without its symmetries, k x k between learned linear maps (see `nn.vsml`)."""

import flax.linen as nn
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, recurrent, vsml


class LinearVSML(recurrent.Recurrent):
    """Learned linear maps into the rows' messages and out of the columns'."""

    grid: int
    hidden: int
    messages: int
    ticks: int

    def setup(self):
        k, m = self.grid, self.messages
        self.cell = vsml.GridCell(k, k, self.hidden, m, self.ticks)
        self.embed, self.readout = nn.Dense(k * m), nn.Dense(self.outputs)
        # columns have no input of their own, and differ only by what is read from them: a code makes them distinct
        self.code = self.param("code", nn.initializers.normal(1.0), (k, m))

    def initial_state(self, num, length):
        return self.cell.initial_state(num)

    def project_inputs(self, tokens_BLI):
        return self.embed(tokens_BLI).reshape(*tokens_BLI.shape[:2], self.grid, self.messages)

    def step(self, state, u_BKI):
        state, column_BKI = self.cell(state, u_BKI, jnp.broadcast_to(self.code, u_BKI.shape))
        return state, column_BKI.reshape(u_BKI.shape[0], -1)


def make(spec: network.NetworkSpec, *, grid: int, hidden: int, messages: int, ticks: int) -> network.Network:
    """grid: k; hidden units per cell, messages of so many floats, ticks of the grid per token."""
    validate.positive(grid=grid, hidden=hidden, messages=messages, ticks=ticks)
    return network.of(LinearVSML(spec.outputs, spec.unroll, grid, hidden, messages, ticks), recurrent=True)
