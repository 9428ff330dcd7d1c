"""Titans (2501.00663): a neural memory that writes what surprises it, alone or beside attention over a window.

Ours, where the paper leaves it open: layers are square and per head, a query reads after its own token was learned, and
in a segment of `mac` a token sees what was recalled for tokens up to its own (the paper's mask shows it later ones),
and the memory gates what attention said there as in `mag`: with their plain product nothing was learned. Attention of
`mac` and `mag` has the memory's q, k and v, whose convolution is what tells it the order of tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import validate
from metalearn.nn import mixing, network, transformer
from metalearn.nn.neural_memory import NeuralMemory
from metalearn.nn.transformer import normal
from metalearn.types import Array, HostArray


class Titans(NeuralMemory):
    """The memory and attention in one mixer: mac, mag or mal; `first` is how many persistent tokens there are."""

    variant: str
    window: int
    first: int

    def setup_memory(self):
        super().setup_memory()
        D, small = self.width, (2 * self.depth) ** -0.5  # residual outputs start small
        if self.variant == "mal":
            self.attention_qkv = self.param("attention_qkv", normal(1.0), (D, 3 * D))
        self.attention_out = self.param("attention_out", normal(small), (D, D))
        self.first_kv = self.param("persistent", normal(1.0), (2, self.first, D))
        if self.variant == "mac":
            self.recalled_kv = self.param("recalled_kv", normal(1.0), (D, 2 * D))
            self.remember = self.param("remember", normal(1.0), (D, 3 * D))
        if self.variant != "mal":
            start = np.array([[small], [1.0]], np.float32)
            self.scales = self.param("scales", lambda _: jnp.broadcast_to(start, (2, D)))

    def initial_memory(self, num):
        state = super().initial_memory(num)
        if self.variant == "mac":
            return state
        return state | {"attention": mixing.seen_nothing(num, self.window, self.num_heads, self.size)}

    def __call__(self, state, x_BLD, fresh):
        if self.variant == "mac":
            return super().__call__(state, x_BLD, fresh)
        window, (q, k, v) = self.project(state["window"], x_BLD)
        memory = {g: s for g, s in state.items() if g not in ("attention", "window")}
        memory, o_BLHK = self.mix(memory, q, k, v, x_BLD, fresh)
        o_BLD = self.say(o_BLHK, x_BLD)
        if self.variant == "mal":
            q, k, v = (self.by_head(a) for a in jnp.split((x_BLD + o_BLD) @ self.attention_qkv, 3, -1))
        else:
            q, k = self.louder(q, k)
        attention, k, v, mask_B1LM = mixing.look_back(state["attention"], k, v, fresh)
        y_BLD = self.attend(q, k, v, mask_B1LM)
        if self.variant == "mag":
            y_BLD = self.gated(mixing.norm(y_BLD), o_BLD)
        return memory | {"attention": attention, "window": window}, y_BLD

    def gated(self, y_BLD: Array, o_BLD: Array) -> Array:
        """What attention says, y, normed already, gated by what the memory says."""
        return self.scales[0] * y_BLD * jax.nn.sigmoid(self.scales[1] * mixing.norm(o_BLD))

    def louder(self, *units: Array) -> list[Array]:
        """Vectors of unit length with unit mean square, as those have that attention makes itself."""
        return [a * self.size**0.5 for a in units]

    def by_head(self, a_BLD: Array) -> Array:
        return a_BLD.reshape(*a_BLD.shape[:2], self.num_heads, -1)

    def attend(self, q_BLHK: Array, k_BMHK: Array, v_BMHK: Array, mask_B1LM: HostArray) -> Array:
        """(B, L, D), with the persistent tokens in front, which every query sees."""
        ahead = lambda first_PD, a: jnp.concatenate(
            [jnp.broadcast_to(self.by_head(first_PD[None]), (len(a), self.first, *a.shape[2:])), a], 1)
        k, v = (ahead(first, a) for first, a in zip(self.first_kv, (k_BMHK, v_BMHK), strict=True))
        mask_B1LM = jnp.pad(mask_B1LM, ((0, 0),) * 3 + ((self.first, 0),), constant_values=True)
        y_BLHK = transformer.attend(q_BLHK, k, v, mask_B1LM)
        return y_BLHK.reshape(*q_BLHK.shape[:2], self.width) @ self.attention_out

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        if self.variant != "mac":
            return super().mix(state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh)
        mask_LL = np.tri(self.chunk, dtype=bool)
        mask_11LM = np.concatenate([mask_LL, mask_LL], 1)[None, None]

        def segment(memory, now):
            recalled_BCD = mixing.norm(self.read(memory, now["q"]).reshape(*now["q"].shape[:2], -1))
            recalled = (self.by_head(part) for part in jnp.split(recalled_BCD @ self.recalled_kv, 2, -1))
            q, k = self.louder(now["q"], now["k"])
            k, v = (jnp.concatenate(pair, 1) for pair in zip(recalled, (k, now["v"]), strict=True))
            y_BCD = mixing.norm(self.attend(q, k, v, mask_11LM))
            q, k, v = self.cut(y_BCD @ self.remember)
            memory, o_BCHK = self.write(memory, q, k, v, y_BCD)
            return memory, self.gated(y_BCD, o_BCHK.reshape(y_BCD.shape)).reshape(o_BCHK.shape)

        return self.by_chunks(segment, state, {"q": q_BLHK, "k": k_BLHK, "v": v_BLHK}, fresh)

    @property
    def tokens(self):
        kept = super().tokens  # mac's gates read what attention says, not the token
        return {name: shape for name, shape in kept.items() if self.variant != "mac" or name != "x"}


def make(spec: network.NetworkSpec, *, variant: str, depth: int, width: int, num_heads: int, mlp: int, conv: int,
         chunk: int, layers: int, momentum: bool, decay: bool, rate: float, clip: float, persistent: int,
         window: int) -> network.Network:
    """variant     lmm (memory alone) | mac (recalls beside a segment, attends over both, learns what came of it) |
                   mag (attention over a window, gated by the memory) | mal (memory, then attention over a window)
    chunk, layers, momentum, decay, rate, clip   of the memory, see `NeuralMemory`; of mac `chunk` is the segment
    persistent  learned tokens: lmm begins with them, attention sees them from everywhere
    window      tokens that mag and mal attend over
    """
    validate.one_of(("lmm", "mac", "mag", "mal"), variant=variant)
    validate.positive(chunk=chunk, layers=layers, rate=rate, window=window)
    validate.nonnegative(clip=clip)
    fields: dict[str, Any] = dict(depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, chunk=chunk,
                                  layers=layers, momentum=momentum, decay=decay, rate=rate, clip=clip,
                                  by_place=False, normed=False)
    if variant == "lmm":
        return mixing.make(spec, NeuralMemory, persistent=persistent, **fields)
    validate.nonnegative(persistent=persistent)
    return mixing.make(spec, Titans, variant=variant, window=window, first=persistent, **fields)
