"""The outer-product LSTM (GPICL, appendix [M]): a matrix per head as the state, written by outer products."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, recurrent


class OuterLSTM(recurrent.Recurrent):
    size: int
    num_heads: int
    dtype: Any

    def setup(self):
        self.cell = recurrent.OuterProductLSTMCell(self.size, self.num_heads, self.dtype)
        self.project, self.readout = nn.Dense(self.size * self.num_heads), nn.Dense(self.outputs)

    def initial_state(self, num, length):
        return {"output": self.cell.initial_state(num)}

    def step(self, state, u_BD):
        state, y_BD = self.cell(state["output"], u_BD)
        return {"output": state}, y_BD


def make(spec: network.NetworkSpec, *, size: int, num_heads: int) -> network.Network:
    """num_heads matrices of size x size."""
    validate.positive(size=size, num_heads=num_heads)
    module = OuterLSTM(spec.outputs, spec.unroll, size, num_heads, jnp.dtype(spec.dtype))
    return network.of(module, recurrent=True, dtypes=("float32", "bfloat16"))
