"""Modules around a workspace (2503.01906): an LSTM decides, each tick, whose word is broadcast to all of them.

The workspace is one vector, as wide as a word, with an RMS of 1 at most: no map that is applied over and over makes it
grow. Modules: what the token says, learned maps of the workspace (one of them can become "plus one"), and holding
still; the outputs are read from the workspace.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, recurrent


class GlobalWorkspace(recurrent.Recurrent):
    width: int
    hidden: int
    maps: int
    ticks: int

    def setup(self):
        self.embed, self.readout = nn.Dense(self.width, use_bias=False), nn.Dense(self.outputs)
        self.project = nn.Dense(4 * self.hidden)
        self.router = recurrent.Controller("lstm", self.hidden)
        self.gate = nn.Dense(self.maps + 2)
        near = lambda key, shape: jnp.eye(self.width) + 0.5 * self.width**-0.5 * jax.random.normal(key, shape)
        self.change = self.param("maps", near, (self.maps, self.width, self.width))

    def initial_state(self, num, length):
        return {"router": self.router.initial_state(num), "memory": {"workspace": jnp.zeros((num, 1, self.width))}}

    def project_inputs(self, tokens_BLI):
        return self.project(tokens_BLI), self.embed(tokens_BLI)

    def step(self, state, u):
        gates_BX, word_BD = u
        router, held_BD = state["router"], state["memory"]["workspace"][:, 0]
        for _ in range(self.ticks):
            router, h_BH = self.router(router, held_BD, projected_BD=gates_BX)
            share_BM = jax.nn.softmax(self.gate(h_BH))
            changed_BMD = jnp.einsum("bd,mde->bme", held_BD, self.change)
            words_BMD = jnp.concatenate([held_BD[:, None], word_BD[:, None], changed_BMD], 1)
            held_BD = jnp.einsum("bm,bmd->bd", share_BM, words_BMD)
            held_BD = held_BD * jax.lax.rsqrt(jnp.maximum((held_BD**2).mean(-1, keepdims=True), 1.0))
        return {"router": router, "memory": {"workspace": held_BD[:, None]}}, held_BD


def make(spec: network.NetworkSpec, *, width: int, hidden: int, maps: int, ticks: int) -> network.Network:
    """width of the workspace; hidden units of the LSTM that routes; maps: modules that change what the workspace holds;
    ticks: broadcasts for each token"""
    validate.positive(width=width, hidden=hidden, maps=maps, ticks=ticks)
    return network.of(GlobalWorkspace(spec.outputs, spec.unroll, width, hidden, maps, ticks), recurrent=True)
