"""VSML on the X x V grid: what it learns commutes with permutations of inputs and of labels (see `nn.vsml`)."""

import flax.linen as nn
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, recurrent, vsml


class VSML(recurrent.Recurrent):
    """Tokens [x_t, y_{t-1}] on the X x V grid; outputs are the first entry of each label's message."""

    rows: int
    hidden: int
    messages: int
    ticks: int

    def setup(self):
        self.cell = vsml.GridCell(self.rows, self.outputs, self.hidden, self.messages, self.ticks)
        self.scale = self.param("scale", nn.initializers.constant(self.rows**0.5), ())

    def initial_state(self, num, length):
        return self.cell.initial_state(num)

    def project_inputs(self, tokens_BLI):
        x_BLX, y_BLV = jnp.split(tokens_BLI, [self.rows], axis=-1)
        return x_BLX[..., None], y_BLV[..., None]

    def step(self, state, u):
        state, column_BVI = self.cell(state, *u)
        return state, column_BVI[..., 0]

    def read_out(self, y_BLV):
        return y_BLV * self.scale  # the mean over rows shrinks with their number


def make(spec: network.NetworkSpec, *, hidden: int, messages: int, ticks: int) -> network.Network:
    """hidden units per cell of the grid, messages of so many floats, ticks of the grid per token."""
    validate.positive(hidden=hidden, messages=messages, ticks=ticks)
    validate.require(spec.layout in ("shifted", "x_and_last_label"), "name", "vsml",
                     f"needs layout=shifted (inputs=x_and_last_label), not {spec.layout}: its grid is X x V")
    module = VSML(spec.outputs, spec.unroll, spec.features, hidden, messages, ticks)
    return network.of(module, recurrent=True)
