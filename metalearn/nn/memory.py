"""Recurrent cores behind one record, and the one driver that scans them.

  nse      four controllers (input, read, write, output) around a read-compose-write memory, convex overwrite
  ntm      content, interpolate, shift, sharpen; erase and add         (`nn.memory_slots`, for these three)
  lrua     MANN's least-recently-used access
  dnc      allocation by usage, optional temporal links
  lstm     a plain LSTM; no memory apart from its state                (`nn.memory_controls`, for these three)
  outer_lstm   the outer-product LSTM: fast weights
  gated    a leaky register behind a gate that opens on a marker

The wiring of `nse` follows Neural Semantic Encoders (Munkhdalai & Yu) for the read, with four LSTMs as controllers: a
reconstruction of "Fast & Slow Learning" (arXiv 2011.05438) from its abstract and sources, not that paper's equations.

A state is {group: {leaf: array}} of floats. The group `memory` holds leaves (B, M, ...), one row per slot; every other
group holds vectors (B, ...). Synthetic gradients (`nn.feedback`) have one head per group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import addressing
from metalearn.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Core:
    """Pure functions of one recurrent network, time-major.

    init(key, x_TBX) -> params
    start(params, num) -> state                 before the first input of `num` episodes
    hoist(params, x_TBX) -> u_TB...             what does not wait for the state: done for all steps at once
    step(params, state, u_B) -> (state, y_BD, weights)   weights: {name: (B, M) or (B, M, H)}, who was read and written
    head(params, y_TBD) -> logits_TBV
    """

    init: Callable
    start: Callable
    hoist: Callable
    step: Callable
    head: Callable


def unroll(core: Core, params: PyTree, state: PyTree, x_TBX: Array, *, unroll: int = 4, weights: bool = False):
    """Runs the core over x: (state, logits_TBV), and the stacked read and write weights where `weights` is set."""

    def body(state, u_B):
        state, y_BD, seen = core.step(params, state, u_B)
        return state, (y_BD, seen if weights else {})

    state, (y_TBD, seen) = jax.lax.scan(body, state, core.hoist(params, x_TBX), unroll=min(unroll, len(x_TBX)))
    logits_TBV = core.head(params, y_TBD)
    return (state, logits_TBV, seen) if weights else (state, logits_TBV)


def make(network: dict, *, outputs: int) -> Core:
    """The core that `network` = {"name": ..., its sizes} describes; ConfigError names `network.<field>`."""
    from metalearn.nn import memory_controls, memory_slots  # they build on this file

    kinds = {"nse": _nse} | memory_slots.KINDS | memory_controls.KINDS
    with validate.within("network"):
        name = network.get("name", "")
        validate.one_of(kinds, name=name)
        return wrap(validate.call(kinds[name], outputs, **{k: v for k, v in network.items() if k != "name"}))


def wrap(module: nn.Module) -> Core:
    """The record of a linen module with `start`, `hoist`, `step`, `head`, and a `__call__` that touches them all."""
    bind = lambda method: lambda params, *args: module.apply({"params": params}, *args, method=method)
    return Core(lambda key, x_TBX: module.init(key, x_TBX[:1])["params"],
                bind("start"), bind("hoist"), bind("step"), bind("head"))


def state_size(core: Core, params: PyTree) -> int:
    """Floats of one episode's state."""
    state = jax.eval_shape(lambda p: core.start(p, 1), params)
    return sum(leaf.size for leaf in jax.tree.leaves(state))


def lstm(c_BD: Array, gates_BD: Array) -> dict[str, Array]:
    """The LSTM update from the four gates side by side; the forget gate starts open (+1)."""
    i, f, g, o = jnp.split(gates_BD, 4, axis=-1)
    c_BD = jax.nn.sigmoid(f + 1) * c_BD + jax.nn.sigmoid(i) * jnp.tanh(g)
    return {"h": jax.nn.sigmoid(o) * jnp.tanh(c_BD), "c": c_BD}


class Controller(nn.Module):
    """An LSTM in one fused gate matmul, or (`ffn`) one tanh layer: an LSTM can learn to bypass the memory.

    `hoisted_BD` is an input projection made outside the scan, `width(kind)` wide.
    """

    kind: str
    size: int

    @nn.compact
    def __call__(self, state: dict, *parts_BX: Array, hoisted_BD: Array | None = None) -> tuple[dict, Array]:
        recurrent = [state["h"]] if self.kind == "lstm" else []
        inputs = [*parts_BX, *recurrent]
        wide = self.size * (4 if self.kind == "lstm" else 1)
        gates_BD = hoisted_BD if hoisted_BD is not None else 0.0
        if inputs:
            gates_BD = gates_BD + nn.Dense(wide, name="gates", use_bias=hoisted_BD is None)(jnp.concatenate(inputs, -1))
        if self.kind == "ffn":
            return {}, jnp.tanh(gates_BD)
        state = lstm(state["c"], gates_BD)
        return state, state["h"]

    @nn.nowrap
    def start(self, num: int) -> dict:
        return {} if self.kind == "ffn" else {"h": jnp.zeros((num, self.size)), "c": jnp.zeros((num, self.size))}

    @property
    def gate_width(self) -> int:
        return self.size * (4 if self.kind == "lstm" else 1)


class StartMemory(nn.Module):
    """M_0. `constant`: a small constant with fixed jitter; `learned`: a parameter that starts there; `flat`: 1e-6.

    A pure constant under content addressing would keep slots exchangeable for ever, hence the jitter. Rules that also
    address by place or by usage may start flat: slots that nobody wrote are then like no key at all, while the cosine
    sees jittered ones, however small, as so many other keys.
    """

    kind: str
    slots: int
    width: int
    constant: float = 1e-2
    jitter: float = 1e-1

    @nn.compact
    def __call__(self, num: int) -> Array:
        if self.kind == "flat":
            return jnp.full((num, self.slots, self.width), 1e-6)
        key = jax.random.key(20, impl="threefry2x32")
        M_MW = self.constant + self.jitter * jax.random.normal(key, (self.slots, self.width))
        if self.kind == "learned":
            M_MW = self.param("M", lambda _: M_MW)
        return jnp.broadcast_to(M_MW, (num, self.slots, self.width))


class NSE(nn.Module):
    """u = LSTM_i(x); q = W_q LSTM_r([u; m]); z = softmax(beta M q); m = z M; c = MLP([q; m]); v = W_v LSTM_w(c);
    M = M (1 - z 1) + z v; y = LSTM_o([c; m]). One z both reads and overwrites."""

    outputs: int
    slots: int
    width: int
    hidden: int
    controller: str
    similarity: str
    memory: str

    def setup(self):
        cell = lambda: Controller(self.controller, self.hidden)
        self.input, self.read, self.write, self.output = cell(), cell(), cell(), cell()
        self.project = nn.Dense(self.input.gate_width)
        self.query, self.value = nn.Dense(self.width), nn.Dense(self.width)
        self.compose_in, self.compose_out = nn.Dense(self.hidden), nn.Dense(self.hidden)
        self.start_memory = StartMemory(self.memory, self.slots, self.width)
        self.readout = nn.Dense(self.outputs)
        if self.similarity == "cosine":
            self.beta = self.param("beta", lambda _: jnp.full((), 3.0))

    def __call__(self, x_TBX):
        _, y_BD, _ = self.step(self.start(x_TBX.shape[1]), self.hoist(x_TBX)[0])
        return self.head(y_BD[None])

    def start(self, num: int):
        return {"input": self.input.start(num), "read": self.read.start(num) | {"m": jnp.zeros((num, self.width))},
                "write": self.write.start(num), "output": self.output.start(num),
                "memory": {"M": self.start_memory(num)}}

    def hoist(self, x_TBX):
        return self.project(x_TBX)

    def step(self, state, u_BD):
        M_BMW = state["memory"]["M"]
        s_input, u_BD = self.input(state["input"], hoisted_BD=u_BD)
        s_read, h_BD = self.read(state["read"], u_BD, state["read"]["m"])
        q_BW = self.query(h_BD)
        if self.similarity == "cosine":
            z_BM = addressing.content(M_BMW, q_BW, jax.nn.softplus(self.beta))
        else:
            z_BM = jax.nn.softmax(jnp.einsum("bmw,bw->bm", M_BMW, q_BW))
        m_BW = addressing.read(M_BMW, z_BM)
        c_BD = self.compose_out(nn.relu(self.compose_in(jnp.concatenate([q_BW, m_BW], -1))))
        s_write, h_BD = self.write(state["write"], c_BD)
        M_BMW = addressing.overwrite(M_BMW, z_BM, self.value(h_BD))
        s_output, y_BD = self.output(state["output"], c_BD, m_BW)
        state = {"input": s_input, "read": s_read | {"m": m_BW}, "write": s_write, "output": s_output,
                 "memory": {"M": M_BMW}}
        return state, y_BD, {"read": z_BM, "write": z_BM}

    def head(self, y_TBD):
        return self.readout(y_TBD)


CONTROLLERS, STARTS = ("lstm", "ffn"), ("constant", "learned")


def _nse(outputs: int, *, slots: int, width: int, hidden: int, controller: str, similarity: str, memory: str) -> NSE:
    validate.positive(slots=slots, width=width, hidden=hidden)
    validate.one_of(CONTROLLERS, controller=controller)
    validate.one_of(("dot", "cosine"), similarity=similarity)
    validate.one_of(STARTS, memory=memory)
    return NSE(outputs, slots, width, hidden, controller, similarity, memory)
