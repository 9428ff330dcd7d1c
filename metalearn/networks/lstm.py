"""One LSTM, its input projection made outside the scan."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, recurrent


class LSTM(recurrent.Recurrent):
    hidden: int
    dtype: Any

    def setup(self):
        self.cell = recurrent.Controller("lstm", self.hidden, self.dtype)
        self.project, self.readout = nn.Dense(4 * self.hidden, dtype=self.dtype), nn.Dense(self.outputs)

    def initial_state(self, num, length):
        return {"output": self.cell.initial_state(num)}

    def project_inputs(self, tokens_BLI):
        u_BLD = self.project(tokens_BLI)
        return u_BLD.astype(jnp.promote_types(u_BLD.dtype, jnp.float32))  # gates are added and squashed in f32

    def step(self, state, u_BD):
        state, y_BD = self.cell(state["output"], projected_BD=u_BD)
        return {"output": state}, y_BD


def make(spec: network.NetworkSpec, *, hidden: int) -> network.Network:
    """hidden: units; the state is twice that."""
    validate.positive(hidden=hidden)
    module = LSTM(spec.outputs, spec.unroll, hidden, jnp.bfloat16 if spec.dtype == "bfloat16" else None)
    return network.of(module, recurrent=True, dtypes=("float32", "bfloat16"))
