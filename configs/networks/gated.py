"""A leaky register behind a gate that opens on a marker: the smallest network that `tasks.gated_recall` asks for."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, recurrent


class Gated(recurrent.Recurrent):
    """s <- s + g (E x - s), g = sigmoid(b + w marker), outputs = C s; the marker is the last entry of a token.

    b = -3 and w = 0 at the start: the gate is almost shut and does not know the marker, so whoever wants a symbol
    kept must send credit back to the step that saw it.
    """

    width: int
    bias: float

    def setup(self):
        self.embed = nn.Dense(self.width, use_bias=False)
        self.readout = nn.Dense(self.outputs, use_bias=False)
        self.b = self.param("b", lambda _: jnp.full((), self.bias))
        self.w = self.param("w", lambda _: jnp.zeros(()))

    def initial_state(self, num, length):
        return {"output": {"s": jnp.zeros((num, self.width))}}

    def project_inputs(self, tokens_BLI):
        return self.embed(tokens_BLI[..., :-1]), jax.nn.sigmoid(self.b + self.w * tokens_BLI[..., -1:])

    def step(self, state, u):
        e_BD, g_B1 = u
        s_BD = state["output"]["s"]
        s_BD = s_BD + g_B1 * (e_BD - s_BD)
        return {"output": {"s": s_BD}}, s_BD


def make(spec: network.NetworkSpec, *, width: int, bias: float) -> network.Network:
    """width: entries of the register; bias: what the gate starts at, before the sigmoid."""
    validate.positive(width=width)
    validate.require(spec.layout in ("x", "x_and_shown_label"), "name", "gated",
                     f"needs a marker as the last entry of its inputs; inputs (or layout) {spec.layout} have none")
    return network.of(Gated(spec.outputs, spec.unroll, width, bias), recurrent=True)
