"""PMI (2310.09297): attention over a window beside a working and a long-term memory that segments compete to write.

The k most relevant tokens of a segment per slot go into the working memory, which is consolidated into long-term ones;
tokens read both, and what the long-term memory says is corrected by the working one. Ours, so that it is causal: a
segment reads what those before it wrote, and blocks have memories of their own. Window 1 is the memory alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import validate
from metalearn.nn import fast_weights, mixing, network, transformer
from metalearn.nn.transformer import normal
from metalearn.types import Array, PyTree


class Pmi(mixing.WindowAttention):
    chunk: int
    slots: int
    long: int
    top: int
    keep: float
    outer: str
    reads: str

    def setup_memory(self):
        D, small = self.width, normal((2 * self.depth) ** -0.5)  # plain parameters: they are used within a scan
        give = lambda names, shape, how=normal(1.0): {name: self.param(name, how, shape) for name in names.split()}
        self.kernels = give("ask key value up down again", (D, D)) | give("by_tokens by_slot", (D, 2 * D))
        self.weights = give("tokens", (D,), jax.nn.initializers.ones)
        readers = {"corrected": "working long both", "sum": "working long"}.get(self.reads, self.reads)
        self.readers = {r: (*give(f"{r}_q", (D, D)).values(), *give(f"{r}_kv", (D, 2 * D)).values(),
                            *give(f"{r}_out", (D, D), small).values()) for r in readers.split()}
        self.start = self.param("start", jax.nn.initializers.uniform(1.0), (self.long * self.slots, D))

    def initial_memory(self, num):
        some = lambda a: jnp.broadcast_to(a, (num, *a.shape))
        memory = {"working": some(jnp.eye(self.slots, self.width)), "long": some(self.start)}
        return super().initial_memory(num) | {
            "memory": memory, "begun": fast_weights.begun(num, self.chunk, x=(self.width,))}

    def __call__(self, state, x_BLD, fresh):
        kept = {"inner": state["memory"], "begun": state["begun"]}
        rest, y_BLD = super().__call__({g: state[g] for g in ("seen", "window")}, x_BLD, fresh)
        segment = lambda memory, now: (self.write(memory, now["x"]), self.read(memory, now["x"]))
        kept, u_BLD = fast_weights.by_chunks(segment, self.chunk, kept, {"x": mixing.norm(x_BLD + y_BLD)}, fresh)
        return rest | {"memory": kept["inner"], "begun": kept["begun"]}, y_BLD + u_BLD

    def write(self, memory: PyTree, h_BCD: Array) -> PyTree:
        """What a whole segment leaves."""
        K, old_BND = self.kernels, memory["working"]
        share_BNC = jax.nn.softmax((old_BND @ K["ask"]) @ (h_BCD @ K["key"]).swapaxes(1, 2))
        least = jax.lax.top_k(share_BNC, self.top)[0][..., -1:]
        won_BNC = jnp.where(share_BNC >= least, share_BNC, 0.0)
        new_BND = mixing.norm(old_BND + won_BNC @ (h_BCD @ K["value"]))
        new_BND = mixing.norm(new_BND + jax.nn.relu(jax.nn.relu(new_BND @ K["up"]) @ K["down"]) @ K["again"])
        gates = jax.nn.relu(self.weights["tokens"] * h_BCD).mean(1, keepdims=True) @ K["by_tokens"]
        put, stay = jnp.split(gates + jnp.tanh(old_BND) @ K["by_slot"], 2, -1)
        working_BND = jax.nn.sigmoid(stay + 1) * old_BND + jax.nn.sigmoid(put) * jnp.tanh(new_BND)
        long_BMND = memory["long"].reshape(-1, self.long, self.slots, self.width)
        if self.outer == "code":
            outer_BMND = long_BMND.sum(-1, keepdims=True) * new_BND[:, None]
        else:
            outer_BMND = long_BMND @ (long_BMND.swapaxes(-1, -2) @ new_BND[:, None]) / self.slots
        return {"working": working_BND, "long": mixing.norm(long_BMND + outer_BMND).reshape(memory["long"].shape)}

    def read(self, memory: PyTree, h_BCD: Array) -> Array:
        """What each token hears of memories that it does not write."""
        say, everything = {}, np.ones((1, 1, h_BCD.shape[1], self.slots), bool)
        if "working" in self.readers:
            say["working"] = self.hear("working", h_BCD, memory["working"], everything)
        if "long" in self.readers:
            long_BND = memory["long"].reshape(-1, self.long, self.slots, self.width).mean(1)
            say["long"] = self.hear("long", h_BCD, long_BND, everything)
        if "both" in self.readers:  # across tokens: of each, those up to it
            say["long"] = self.hear("both", say["long"], say["working"], np.tri(h_BCD.shape[1], dtype=bool)[None, None])
        if len(say) == 1:
            return next(iter(say.values()))
        return self.keep * say["working"] + (1 - self.keep) * say["long"]

    def hear(self, reader: str, h_BCD: Array, slots_BND: Array, mask) -> Array:
        ask, kv, out = self.readers[reader]
        by_head = lambda a: a.reshape(*a.shape[:2], self.num_heads, -1)
        k, v = jnp.split(slots_BND @ kv, 2, -1)
        return transformer.attend(by_head(h_BCD @ ask), by_head(k), by_head(v), mask).reshape(h_BCD.shape) @ out


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, window: int,
         chunk: int, slots: int, long: int, top: int, keep: float, outer: str, reads: str) -> network.Network:
    """window   tokens that attention sees, its own the last of them
    chunk    tokens of a segment; slots of the working memory; `long` long-term memories of as many slots
    top      tokens of a segment that a slot takes at most
    keep     the working memory's part in what is heard
    outer    how a slot W enters the long-term slot L: code (the published program: the sum of L, times W) | full (all
             slots' outer products L W, read by L again)
    reads    corrected (the paper's) | sum (long-term memory uncorrected) | working (alone: a shared workspace) | long
    """
    validate.one_of(("corrected", "sum", "working", "long"), reads=reads)
    validate.one_of(("code", "full"), outer=outer)
    validate.positive(window=window, chunk=chunk, slots=slots, long=long, top=top)
    validate.require(0 <= keep <= 1, "keep", keep, "must lie between 0 and 1")
    validate.require(top <= chunk, "top", top, f"must be at most chunk={chunk}: a slot takes tokens of one segment")
    return mixing.make(spec, Pmi, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, window=window,
                       chunk=chunk, slots=slots, long=long, top=top, keep=keep, outer=outer, reads=reads)
