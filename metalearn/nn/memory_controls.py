"""Controls: recurrent networks without an addressed memory, behind the same `nn.memory.Core`."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import memory
from metalearn.nn.recurrent import OuterProductLSTMCell


class LSTM(nn.Module):
    """One LSTM, its input projection hoisted out of the scan."""

    outputs: int
    hidden: int

    def setup(self):
        self.cell = memory.Controller("lstm", self.hidden)
        self.project, self.readout = nn.Dense(4 * self.hidden), nn.Dense(self.outputs)

    def __call__(self, x_TBX):
        return self.head(self.step(self.start(x_TBX.shape[1]), self.hoist(x_TBX)[0])[1][None])

    def start(self, num):
        return {"output": self.cell.start(num)}

    def hoist(self, x_TBX):
        return self.project(x_TBX)

    def step(self, state, u_BD):
        state, y_BD = self.cell(state["output"], hoisted_BD=u_BD)
        return {"output": state}, y_BD, {}

    def head(self, y_TBD):
        return self.readout(y_TBD)


class OuterLSTM(nn.Module):
    """`nn.recurrent.OuterProductLSTMCell`: a matrix per head as the state, written by outer products."""

    outputs: int
    size: int
    num_heads: int

    def setup(self):
        self.cell = OuterProductLSTMCell(self.size, self.num_heads)
        self.project, self.readout = nn.Dense(self.size * self.num_heads), nn.Dense(self.outputs)

    def __call__(self, x_TBX):
        return self.head(self.step(self.start(x_TBX.shape[1]), self.hoist(x_TBX)[0])[1][None])

    def start(self, num):
        C_BHKK, h_BD = self.cell.initialize_carry(None, (num,))
        return {"output": {"C": C_BHKK, "h": h_BD}}

    def hoist(self, x_TBX):
        return self.project(x_TBX)

    def step(self, state, u_BD):
        (C_BHKK, h_BD), y_BD = self.cell((state["output"]["C"], state["output"]["h"]), u_BD)
        return {"output": {"C": C_BHKK, "h": h_BD}}, y_BD, {}

    def head(self, y_TBD):
        return self.readout(y_TBD)


class Gated(nn.Module):
    """s <- s + g (E x - s), g = sigmoid(b + w marker), logits = C s; the marker is the last input feature.

    b = -3 and w = 0 at the start: the gate is almost shut and does not know the marker, so whoever wants a symbol
    kept must send credit back to the step that saw it.
    """

    outputs: int
    width: int
    bias: float

    def setup(self):
        self.embed = nn.Dense(self.width, use_bias=False)
        self.readout = nn.Dense(self.outputs, use_bias=False)
        self.b = self.param("b", lambda _: jnp.full((), self.bias))
        self.w = self.param("w", lambda _: jnp.zeros(()))

    def __call__(self, x_TBX):
        return self.head(self.step(self.start(x_TBX.shape[1]), tuple(u[0] for u in self.hoist(x_TBX)))[1][None])

    def start(self, num):
        return {"output": {"s": jnp.zeros((num, self.width))}}

    def hoist(self, x_TBX):
        return self.embed(x_TBX[..., :-1]), jax.nn.sigmoid(self.b + self.w * x_TBX[..., -1:])

    def step(self, state, u):
        e_BD, g_B1 = u
        s_BD = state["output"]["s"]
        s_BD = s_BD + g_B1 * (e_BD - s_BD)
        return {"output": {"s": s_BD}}, s_BD, {}

    def head(self, y_TBD):
        return self.readout(y_TBD)


def _lstm(outputs: int, *, hidden: int) -> LSTM:
    validate.positive(hidden=hidden)
    return LSTM(outputs, hidden)


def _outer_lstm(outputs: int, *, size: int, num_heads: int) -> OuterLSTM:
    validate.positive(size=size, num_heads=num_heads)
    return OuterLSTM(outputs, size, num_heads)


def _gated(outputs: int, *, width: int, bias: float) -> Gated:
    validate.positive(width=width)
    return Gated(outputs, width, bias)


KINDS = {"lstm": _lstm, "outer_lstm": _outer_lstm, "gated": _gated}
