"""Four controllers (input, read, write, output) around a read-compose-write memory with convex overwrite.

The wiring follows Neural Semantic Encoders (Munkhdalai & Yu) for the read, with four LSTMs as controllers: a
reconstruction of "Fast & Slow Learning" (arXiv 2011.05438) from its abstract and sources, not that paper's equations.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import addressing, memory, network, recurrent


class NSE(recurrent.Recurrent):
    """u = LSTM_i(x); q = W_q LSTM_r([u; m]); z = softmax(beta M q); m = z M; c = MLP([q; m]); v = W_v LSTM_w(c);
    M = M (1 - z 1) + z v; y = LSTM_o([c; m]). One z both reads and overwrites."""

    slots: int
    width: int
    hidden: int
    controller: str
    similarity: str
    memory: str

    def setup(self):
        cell = lambda: recurrent.Controller(self.controller, self.hidden)
        self.input, self.read, self.write, self.output = cell(), cell(), cell(), cell()
        self.project = nn.Dense(self.input.gate_width)
        self.query, self.value = nn.Dense(self.width), nn.Dense(self.width)
        self.compose_in, self.compose_out = nn.Dense(self.hidden), nn.Dense(self.hidden)
        self.initial_memory = memory.InitialMemory(self.memory, self.slots, self.width)
        self.readout = nn.Dense(self.outputs)
        if self.similarity == "cosine":
            self.beta = self.param("beta", lambda _: jnp.full((), 3.0))

    def initial_state(self, num, length):
        m_BW = jnp.zeros((num, self.width))
        return {"input": self.input.initial_state(num), "read": self.read.initial_state(num) | {"m": m_BW},
                "write": self.write.initial_state(num), "output": self.output.initial_state(num),
                "memory": {"M": self.initial_memory(num)}}

    def step(self, state, u_BD):
        M_BMW = state["memory"]["M"]
        s_input, u_BD = self.input(state["input"], projected_BD=u_BD)
        s_read, h_BD = self.read(state["read"], u_BD, state["read"]["m"])
        q_BW = self.query(h_BD)
        if self.similarity == "cosine":
            z_BM = addressing.content(M_BMW, q_BW, jax.nn.softplus(self.beta))
        else:
            z_BM = jax.nn.softmax(jnp.einsum("bmw,bw->bm", M_BMW, q_BW))
        self.sow("intermediates", "read_weights_BM", z_BM)
        m_BW = addressing.read(M_BMW, z_BM)
        c_BD = self.compose_out(nn.relu(self.compose_in(jnp.concatenate([q_BW, m_BW], -1))))
        s_write, h_BD = self.write(state["write"], c_BD)
        M_BMW = addressing.overwrite(M_BMW, z_BM, self.value(h_BD))
        s_output, y_BD = self.output(state["output"], c_BD, m_BW)
        return {"input": s_input, "read": s_read | {"m": m_BW}, "write": s_write, "output": s_output,
                "memory": {"M": M_BMW}}, y_BD


def make(spec: network.NetworkSpec, *, slots: int, width: int, hidden: int, controller: str, similarity: str,
         memory: str) -> network.Network:
    """slots x width memory, `hidden` units per controller (lstm | ffn); similarity dot | cosine; memory constant |
    learned."""
    validate.positive(slots=slots, width=width, hidden=hidden)
    validate.one_of(recurrent.CONTROLLERS, controller=controller)
    validate.one_of(("dot", "cosine"), similarity=similarity)
    validate.one_of(("constant", "learned"), memory=memory)
    module = NSE(spec.outputs, spec.unroll, slots, width, hidden, controller, similarity, memory)
    return network.of(module, recurrent=True)
