"""The mixer whose memory is an MLP per head that learns its tokens by gradient descent as it reads them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.nn import fast_weights, mixing
from metalearn.nn.transformer import normal
from metalearn.types import Array, PyTree


class NeuralMemory(mixing.Heads):
    """`fast_weights.descend` a chunk at a time. With `chunk` 1 it is the recurrence; else all gradients of a chunk are
    taken where it starts, and chunks are counted from the sequence's first token.

    layers      of the MLP, each width / num_heads square (1: linear), SiLU between; learned where they start
    momentum, decay    whether there are such; both, and the step size, are functions of the token
    rate        largest step size; a twentieth of it at first, as keys come again within a chunk; half of it where none
                can (`chunk` 1), and `by_place`
    clip        largest norm of a token's error, 0 for none: it keeps a memory of several layers from running away
    by_place    the step size has a learned factor by the place in the chunk (TTT: 1/i at the start)
    normed      the memory's output is normed, and the input added (TTT)
    """

    chunk: int
    layers: int
    momentum: bool
    decay: bool
    rate: float
    clip: float
    by_place: bool
    normed: bool

    def setup_memory(self):
        # plain parameters: linen's layers cannot be called within the scan over chunks
        begin = {"rate": 0.0 if self.by_place or self.chunk == 1 else -3.0}
        begin |= ({"momentum": 0.0} if self.momentum else {}) | ({"forget": -5.0} if self.decay else {})
        self.gates = {name: (self.param(name, normal(1.0), (self.width, self.num_heads)),
                             self.param(f"{name}_bias", nn.initializers.constant(bias), (self.num_heads,)))
                      for name, bias in begin.items()}
        shape = (self.layers, self.width, self.size)
        self.start = self.param("start", nn.initializers.normal(self.size**-0.5), shape)
        if self.by_place:
            self.place = self.param("place", lambda _: 1 / (1.0 + jnp.arange(self.chunk)))
        if self.normed:
            self.scale = self.param("scale", nn.initializers.ones, (self.num_heads, 1, self.size))

    def initial_memory(self, num):
        M = {f"M{i}": jnp.broadcast_to(self.start[i], (num, self.width, self.size)) for i in range(self.layers)}
        S = {f"S{i}": jnp.zeros((num, self.width, self.size)) for i in range(self.layers)} if self.momentum else {}
        return {"memory": M | S, "begun": fast_weights.begun(num, self.chunk, **self.tokens)}

    @property
    def tokens(self) -> dict[str, tuple[int, ...]]:
        """Of a chunk that is under way: the shape of one token."""
        return dict.fromkeys("qkv", (self.num_heads, self.size)) | {"x": (self.width,)}

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        body = lambda memory, now: self.write(memory, now["q"], now["k"], now["v"], now["x"])
        tokens = {"q": q_BLHK, "k": k_BLHK, "v": v_BLHK, "x": x_BLD}
        return self.by_chunks(body, state, tokens, fresh)

    def by_chunks(self, body: Any, state: PyTree, tokens: dict[str, Array], fresh: bool) -> tuple[PyTree, Array]:
        kept = {"inner": state["memory"], "begun": state["begun"]}
        kept, out = fast_weights.by_chunks(body, self.chunk, kept, tokens, fresh)
        return {"memory": kept["inner"], "begun": kept["begun"]}, out

    def write(self, memory: PyTree, q_BCHK: Array, k_BCHK: Array, v_BCHK: Array, x_BCD: Array) -> tuple[PyTree, Array]:
        """(memory, o_BCHK): one chunk is learned, and each token reads right after it."""
        rates = {k: jax.nn.sigmoid(x_BCD @ w + b).swapaxes(1, 2) for k, (w, b) in self.gates.items()}
        rates["rate"] *= self.rate * (self.place if self.by_place else 1.0)
        M, S = self.unpack(memory)
        q, k, v = (a.swapaxes(1, 2) for a in (q_BCHK, k_BCHK, v_BCHK))
        new, o_BHCK = fast_weights.descend({"M": M, "S": S}, q, k, v, rates, self.finish, self.clip)
        named = {f"M{i}": mixing.rows(a) for i, a in enumerate(new["M"])}
        if self.momentum:
            named |= {f"S{i}": mixing.rows(a) for i, a in enumerate(new["S"])}
        return named, o_BHCK.swapaxes(1, 2)

    def read(self, memory: PyTree, q_BCHK: Array) -> Array:
        """What the memory says without learning, (B, C, H, K)."""
        h = q_BHCK = q_BCHK.swapaxes(1, 2)
        for i, layer in enumerate(self.unpack(memory)[0]):
            h = (h if i == 0 else jax.nn.silu(h)) @ layer
        return self.finish(h, q_BHCK).swapaxes(1, 2)

    def unpack(self, memory: PyTree) -> tuple[list[Array], list[Any]]:
        M = [mixing.matrices(memory[f"M{i}"], self.num_heads) for i in range(self.layers)]
        S = [mixing.matrices(memory[f"S{i}"], self.num_heads) for i in range(self.layers)] if self.momentum else []
        return M, S or [None] * self.layers

    def finish(self, h: Array, x: Array) -> Array:
        return x + self.scale * mixing.norm(h) if self.normed else h
