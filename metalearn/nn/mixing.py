"""Pre-norm residual blocks whose first half is any mixer of tokens with a state, and what such mixers share.

A mixer is a module (state, x_BLD, fresh) -> (state, y_BLD) with `initial_state(num)`, where `fresh` says that nothing
was read before. Its state {group: {leaf: (num, ...)}} has the group `memory` with one row per slot, as a network's.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metalearn import validate
from metalearn.nn import network, taps
from metalearn.nn.transformer import Dense, Embed, attend, normal
from metalearn.types import Array, HostArray, PyTree

HEAD_SCALE = 0.1  # the head starts small, as residual outputs do


class Stack(nn.Module):
    """(state, tokens_BLI) -> (state, outputs_BLV): x + mixer(norm(x)), then x + mlp(norm(x)), `depth` times, after
    `persistent` learned tokens that every sequence begins with (Titans, section 3.3); mixer(depth) -> module."""

    outputs: int
    depth: int
    width: int
    mlp: int
    mixer: Callable
    persistent: int = 0

    def setup(self):
        self.embed = Embed(self.width, kernel_init=normal(1.0))
        self.mixers = [self.mixer(self.depth) for _ in range(self.depth)]
        self.norms = [nn.LayerNorm() for _ in range(2 * self.depth)]
        self.ups = [Dense(self.mlp, kernel_init=normal(1.0)) for _ in range(self.depth)]
        self.downs = [Dense(self.width, kernel_init=normal((2 * self.depth) ** -0.5)) for _ in range(self.depth)]
        self.norm, self.head = nn.LayerNorm(), nn.Dense(self.outputs, kernel_init=normal(HEAD_SCALE))
        if self.persistent:
            self.first = self.param("persistent", normal(1.0), (self.persistent, self.width))

    def __call__(self, state: PyTree, tokens_BLI: Array) -> tuple[PyTree, Array]:
        fresh = state is None and not self.persistent
        if state is None:
            state = self.initial_state(tokens_BLI.shape[0], 0)
        state, x_BLD = self._blocks(state, self.embed(tokens_BLI), fresh)
        return state, self.head(self.norm(x_BLD))

    def initial_state(self, num: int, length: int) -> PyTree:
        state = _joined([mixer.initial_state(num) for mixer in self.mixers])
        if self.persistent:
            state, _ = self._blocks(state, jnp.broadcast_to(self.first, (num, *self.first.shape)), True)
        return state

    def _blocks(self, state: PyTree, x_BLD: Array, fresh: bool) -> tuple[PyTree, Array]:
        states = []
        for i, mixer in enumerate(self.mixers):
            own, y_BLD = mixer(_own(state, i), self.norms[2 * i](x_BLD), fresh)
            x_BLD += y_BLD
            x_BLD += self.downs[i](nn.gelu(self.ups[i](self.norms[2 * i + 1](x_BLD))))
            states.append(own)
        return _joined(states), x_BLD


def _joined(states: list[PyTree]) -> PyTree:
    """Blocks' states in one, by group: a leaf of block 1 is called leaf_1."""
    return {group: {f"{leaf}_{i}": value for i, state in enumerate(states) for leaf, value in state[group].items()}
            for group in states[0]}


def _own(state: PyTree, number: int) -> PyTree:
    end = f"_{number}"
    return {group: {leaf.removesuffix(end): value for leaf, value in leaves.items() if leaf.endswith(end)}
            for group, leaves in state.items()}


class Heads(nn.Module):
    """A mixer of heads: q, k and v are products, each convolved over the last `conv` tokens (depthwise, causal) and
    bent by SiLU, q and k then of unit length; what the heads say is normed, gated by the token, and projected.
    Subclasses define
      initial_memory(num) -> state                 without the group `window`, which the convolution has
      mix(state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh) -> (state, o_BLHK)
    """

    width: int
    num_heads: int
    depth: int
    conv: int

    def setup(self):
        self.qkv = Dense(3 * self.width, use_bias=False, kernel_init=normal(1.0))
        if self.conv > 1:  # the newest token alone, at first
            start = lambda _: jnp.zeros((self.conv, 3 * self.width)).at[-1].set(1.0)
            self.taps = self.param("conv", start)
        self.gate = Dense(self.width, kernel_init=normal(1.0))
        self.norm = nn.RMSNorm()
        self.out = Dense(self.width, use_bias=False, kernel_init=normal((2 * self.depth) ** -0.5))
        self.heads = taps.Site()
        self.setup_memory()

    def __call__(self, state: PyTree, x_BLD: Array, fresh: bool) -> tuple[PyTree, Array]:
        window, (q, k, v) = self.project(state["window"], x_BLD)
        rest, o_BLHK = self.mix({g: s for g, s in state.items() if g != "window"}, q, k, v, x_BLD, fresh)
        return rest | {"window": window}, self.say(o_BLHK, x_BLD)

    def project(self, window: dict[str, Array], x_BLD: Array) -> tuple[dict[str, Array], list[Array]]:
        """(window, [q, k, v], each (B, L, H, K))."""
        all_BLX = self.qkv(x_BLD)
        if self.conv > 1:
            length, seen = x_BLD.shape[1], jnp.concatenate([window["qkv"], all_BLX], 1)
            all_BLX = sum((self.taps[i] * seen[:, i:i + length] for i in range(self.conv)), jnp.zeros(()))
            window = {"qkv": seen[:, length:]}
        return window, self.cut(all_BLX)

    def cut(self, all_BLX: Array) -> list[Array]:
        q, k, v = (a.reshape(*a.shape[:2], self.num_heads, -1) for a in jnp.split(nn.silu(all_BLX), 3, -1))
        return [unit(q), unit(k), v]

    def say(self, o_BLHK: Array, x_BLD: Array) -> Array:
        o_BLD = self.norm(self.heads(o_BLHK)).reshape(*x_BLD.shape[:2], self.width)
        return self.out(o_BLD * nn.silu(self.gate(x_BLD)))

    def initial_state(self, num: int) -> PyTree:
        window = {"qkv": jnp.zeros((num, self.conv - 1, 3 * self.width))} if self.conv > 1 else {}
        return self.initial_memory(num) | {"window": window}

    @nn.nowrap
    def setup_memory(self) -> None:
        """More layers."""

    @property
    def size(self) -> int:
        return self.width // self.num_heads


def decay(num_heads: int) -> nn.Dense:
    """w x + c of decays exp(-softplus(w x + c)), from .999 to .9 at the start."""
    return nn.Dense(num_heads, bias_init=lambda *_: jnp.linspace(-6.9, -2.3, num_heads))


def unit(a: Array) -> Array:
    """Of length 1 along the last axis; 0 stays 0, with a gradient."""
    return a * jax.lax.rsqrt((a**2).sum(-1, keepdims=True) + 1e-6)


def norm(a: Array) -> Array:
    """With mean 0 and mean square 1 along the last axis."""
    a = a - a.mean(-1, keepdims=True)
    return a * jax.lax.rsqrt((a**2).mean(-1, keepdims=True) + 1e-6)


def rows(S_BHKV: Array) -> Array:
    """Matrices of all heads as the slots of one memory, (B, H K, V)."""
    return S_BHKV.reshape(S_BHKV.shape[0], -1, S_BHKV.shape[-1])


def matrices(rows_BMV: Array, num_heads: int) -> Array:
    """(B, H, K, V) of `rows`."""
    return rows_BMV.reshape(rows_BMV.shape[0], num_heads, -1, rows_BMV.shape[-1])


def seen_nothing(num: int, window: int, num_heads: int, size: int) -> dict[str, Array]:
    """The state of `look_back` before the first token, for windows of so many tokens."""
    shape = (num, window - 1, num_heads, size)
    return {"k": jnp.zeros(shape), "v": jnp.zeros(shape), "on": jnp.zeros(shape[:2])}


def look_back(state: dict[str, Array], k_BLHK: Array, v_BLHK: Array,
              fresh: bool) -> tuple[dict[str, Array], Array, Array, HostArray]:
    """(state, k_BMHK, v_BMHK, mask (B or 1, 1, L, M)): the keys of a segment behind those kept from before it, of which
    there are none when `fresh`, and which of them each query's window holds."""
    length, kept = k_BLHK.shape[1], state["on"].shape[1]
    new = {"k": k_BLHK, "v": v_BLHK, "on": jnp.ones(k_BLHK.shape[:2])}
    seen = {name: jnp.concatenate([state[name], a], 1) for name, a in new.items()}
    apart = np.arange(length)[:, None] + kept - np.arange(kept + length)  # from a key to the query
    state, mask = {name: a[:, length:] for name, a in seen.items()}, (apart >= 0) & (apart <= kept)
    if fresh:
        return state, k_BLHK, v_BLHK, mask[None, None, :, kept:]
    return state, seen["k"], seen["v"], jnp.asarray(mask) & (seen["on"][:, None, None] > 0)


class WindowAttention(Heads):
    """Softmax attention over the last `window` tokens."""

    window: int

    def initial_memory(self, num):
        return {"seen": seen_nothing(num, self.window, self.num_heads, self.size)}

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        seen, k_BMHK, v_BMHK, mask = look_back(state["seen"], k_BLHK, v_BLHK, fresh)
        return {"seen": seen}, attend(q_BLHK * self.size, k_BMHK, v_BMHK, mask)


def make(spec: network.NetworkSpec, mixer: Callable[..., nn.Module], *, depth: int, width: int, num_heads: int,
         mlp: int, conv: int, persistent: int = 0, **fields: Any) -> network.Network:
    """The record of a stack of such mixers, with the checks that they share; `fields` are the mixer's own."""
    validate.positive(depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv)
    validate.nonnegative(persistent=persistent)
    validate.multiple_of("num_heads", num_heads, width=width)
    # a stack makes its mixers itself, by what it is told its depth is
    each = lambda depth: mixer(width=width, num_heads=num_heads, depth=depth, conv=conv, **fields)
    return network.of(Stack(spec.outputs, depth, width, mlp, each, persistent), recurrent=True)
