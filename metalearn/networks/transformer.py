"""A causal pre-LN Transformer, with an explicit key-value cache where it reads a sequence in pieces."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import network, transformer
from metalearn.types import Array, PyTree

HEAD_SCALE = 0.1  # the head starts small, as residual outputs do (see `nn.transformer`)


class Transformer(nn.Module):
    """(state, tokens_BLI) -> (state, outputs_BLV f32); state None reads a whole sequence at once and keeps no cache.

    positions    0: places have no code; else the number of learned absolute positions
    mask_LL      boolean, queries by keys; None is causal
    last         outputs of the last so many tokens only (the final block then computes no others)
    place_L      which position code each token gets; None: 0, 1, 2, ...

    State {block_i: {k: (B, H, length, K), v: alike}, place: {position: (B,) int32}}; all rows stand at one place.
    """

    outputs: int
    depth: int
    width: int
    num_heads: int
    mlp: int
    positions: int
    remat: str
    dtype: Any

    def setup(self):
        self.embed = transformer.Embed(self.width, dtype=self.dtype, kernel_init=transformer.normal(1.0))
        if self.positions:
            self.position = self.param("position", nn.initializers.normal(0.02), (self.positions, self.width))
        self.blocks = [transformer.Block(self.num_heads, self.mlp, self.depth, self.dtype) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(dtype=jnp.float32)
        self.head = nn.Dense(self.outputs, kernel_init=transformer.normal(HEAD_SCALE))

    def __call__(self, state: PyTree, tokens_BLI: Array, *, mask_LL: Array | None = None, last: int | None = None,
                 place_L: Array | None = None) -> tuple[PyTree, Array]:
        x_BLD, length, first = self.embed(tokens_BLI).astype(jnp.float32), tokens_BLI.shape[1], 0
        new: dict[str, Any] | None = None
        if state is not None:  # the segment is appended to the cache
            first, new = state["place"]["position"][0], {"place": {"position": state["place"]["position"] + length}}
            mask_LL = jnp.arange(state["block_0"]["k"].shape[2])[None] <= first + jnp.arange(length)[:, None]
        if self.positions:
            own = place_L is not None
            x_BLD += self.position[place_L] if own else jax.lax.dynamic_slice_in_dim(self.position, first, length)
        for i, block in enumerate(self.blocks):
            kept, name = last if i + 1 == self.depth else None, f"block_{i}"
            if new is None or state is None:
                x_BLD = transformer.run(block, self.remat, x_BLD, mask_LL, last=kept)
            else:
                x_BLD, new[name] = block(x_BLD, mask_LL, state[name], first, last=kept)
        return new, self.head(self.norm(x_BLD))

    def initial_state(self, num: int, length: int) -> PyTree:
        shape = (num, self.num_heads, length, self.width // self.num_heads)
        blocks = {f"block_{i}": {"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)}
                  for i in range(self.depth)}
        return blocks | {"place": {"position": jnp.zeros(num, jnp.int32)}}


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int,
         positions: bool, remat: str) -> network.Network:
    """depth blocks of this width, with num_heads heads and mlp hidden units; positions: learned absolute ones.

    remat   what a block computes again in the backward pass: none, all but its products, or the whole of the block
            (none | products | blocks): from the fastest to the least memory
    """
    validate.one_of(transformer.REMAT, remat=remat)
    validate.positive(depth=depth, width=width, num_heads=num_heads, mlp=mlp)
    validate.multiple_of("num_heads", num_heads, width=width)
    module = Transformer(spec.outputs, depth, width, num_heads, mlp, spec.length if positions else 0, remat,
                         jnp.dtype(spec.dtype))
    return network.of(module, recurrent=False, masks=True, dtypes=("float32", "bfloat16"))
