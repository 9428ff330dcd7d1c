"""What Transformers are made of: attention with an explicit key-value cache, and the pre-LN block.

Matmuls run in `dtype` (bf16 is an option); softmax, norms and the logits stay in f32. Residual outputs start small, by
1 / sqrt(2 depth), as the measured CPU setting has it.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import noise, taps
from metalearn.types import Array, HostArray

# what of a block is kept for its backward pass: everything, the products with parameters, or nothing but its input
REMAT: dict[str, Callable | None] = {"none": None, "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
                                     "blocks": jax.checkpoint_policies.nothing_saveable}


def normal(scale: float):
    """Variance scale^2 / fan-in."""
    return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")


class Dense(nn.Dense):
    """`nn.Dense` over rows: of a product with two batch axes XLA's CPU gradients take half as long again."""

    def __call__(self, x: Array) -> Array:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class Embed(nn.Dense):
    """`nn.Dense` of tokens, and +1 -1 +1 .. on top where one is all zeros: blocks norm what they read, and each norm of
    a vector of zeros multiplies gradients by a thousand."""

    def __call__(self, tokens_BLI: Array) -> Array:
        nothing_D = jnp.asarray((-1.0) ** np.arange(self.features), self.dtype)
        return super().__call__(tokens_BLI) + nothing_D * (tokens_BLI == 0).all(-1, keepdims=True)


class Attention(nn.Module):
    """Multi-head attention. `mask_LL` is boolean, (queries, keys) or one such per row; a cache's keys are its slots.

    `last` keeps the last so many queries only, or those of a slice: what nobody reads later need not be computed.
    Sites (`nn.taps`): `heads`, what each head mixed, (B, L, H, K); `weights_BHLL`, to be read only, never formed else.
    """

    num_heads: int
    depth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BLD, mask_LL=None, cache=None, position: Any = None, last=None):
        D = x_BLD.shape[-1]
        shape = (*x_BLD.shape[:2], self.num_heads, D // self.num_heads)
        # one fused projection: three small matmuls leave a CPU core waiting
        qkv = Dense(3 * D, dtype=self.dtype, kernel_init=normal(1.0), name="qkv")(x_BLD)
        q_BLHK, k_BLHK, v_BLHK = (part.reshape(shape) for part in jnp.split(qkv, 3, axis=-1))
        mask_LL = np.tri(x_BLD.shape[1], dtype=bool) if mask_LL is None else mask_LL
        if last is not None:
            q_BLHK, mask_LL = q_BLHK[:, _kept(last)], mask_LL[..., _kept(last), :]
        mask = mask_LL[None, None] if mask_LL.ndim == 2 else mask_LL[:, None]
        y_BLHK = None
        if cache is not None:  # (B, H, M, K), as the products read it
            if 4 * x_BLD.shape[1] <= cache["k"].shape[2]:
                y_BLHK = _beside(q_BLHK, k_BLHK, v_BLHK, cache, position, mask)
                # to be written when it has been read: XLA, not sure of that order, would copy all of it, twice
                k_BLHK, v_BLHK = k_BLHK + 0 * y_BLHK[:, :1], v_BLHK + 0 * y_BLHK[:, :1]
            put = lambda old, new: jax.lax.dynamic_update_slice(
                old, new.swapaxes(1, 2).astype(old.dtype), (0, 0, position, 0))
            cache = {"k": put(cache["k"], k_BLHK), "v": put(cache["v"], v_BLHK)}
            k_BLHK, v_BLHK = (cache[name].astype(q_BLHK.dtype).swapaxes(1, 2) for name in ("k", "v"))
        y_BLHK = attend(q_BLHK, k_BLHK, v_BLHK, mask) if y_BLHK is None else y_BLHK
        if self.is_mutable_collection("intermediates"):
            q_BHLK, k_BHLK = q_BLHK.swapaxes(1, 2), k_BLHK.swapaxes(1, 2)
            self.sow("intermediates", "weights_BHLL", _weights(q_BHLK, k_BHLK, _hidden(mask)))
        y_BLD = taps.Site(name="heads")(y_BLHK).reshape(*q_BLHK.shape[:2], D)
        return Dense(D, dtype=self.dtype, kernel_init=normal((2 * self.depth) ** -0.5), name="out")(y_BLD), cache


def _beside(q_BLHK: Array, k_BLHK: Array, v_BLHK: Array, cache: dict[str, Array], position: Array,
            mask: HostArray) -> Array:
    """`attend` to what a cache holds before `position`, and to the few tokens that stand from there on."""
    q_BHLK, k_BHLK, v_BHLK = (part.swapaxes(1, 2) for part in (q_BLHK * q_BLHK.shape[-1] ** -0.5, k_BLHK, v_BLHK))
    k_BHMK, v_BHMK = (cache[name].astype(q_BLHK.dtype) for name in ("k", "v"))
    M, L = k_BHMK.shape[2], k_BHLK.shape[2]
    score = lambda k, mask: _hidden(mask) + jnp.einsum("bhlk,bhmk->bhlm", q_BHLK, k, preferred_element_type=jnp.float32)
    own = jax.lax.dynamic_slice_in_dim(jnp.asarray(mask), position, L, -1)
    scores = score(k_BHMK, mask & (jnp.arange(M) < position)), score(k_BHLK, own)
    p_BHLM = jax.nn.softmax(jnp.concatenate(scores, -1)).astype(q_BLHK.dtype)
    mixed = lambda p, v: jnp.einsum("bhlm,bhmk->bhlk", p, v)
    return (mixed(p_BHLM[..., :M], v_BHMK) + mixed(p_BHLM[..., M:], v_BHLK)).swapaxes(1, 2)


def _kept(last: int | slice) -> slice:
    return last if isinstance(last, slice) else slice(-last, None)


def attend(q_BLHK: Array, k_BMHK: Array, v_BMHK: Array, mask: Array | np.ndarray) -> Array:
    """softmax(q k / sqrt K) v, (B, L, H, K), of boolean `mask` (B or 1, 1, L, M); no row of it may be empty.

    Two products per head with heads outermost and a backward pass that keeps the weights: on CPU 1.5 times as fast as
    `jax.nn.dot_product_attention` with its gradient.
    """
    by_head = (part.swapaxes(1, 2) for part in (q_BLHK, k_BMHK, v_BMHK))
    return _attend(*by_head, _hidden(mask)).swapaxes(1, 2)


def _hidden(mask: HostArray) -> HostArray:
    """What is added to scores: 0, or minus nearly all where the mask is off. An addition is cheaper than a choice."""
    return (mask - np.float32(1.0)) * np.float32(1e30)


def _weights(q_BHLK: Array, k_BHMK: Array, hidden: HostArray) -> Array:
    """softmax(q k / sqrt K), f32: what the values are weighed by."""
    q_BHLK = q_BHLK * q_BHLK.shape[-1] ** -0.5
    scores_BHLM = jnp.einsum("bhlk,bhmk->bhlm", q_BHLK, k_BHMK, preferred_element_type=jnp.float32) + hidden
    unscaled_BHLM = jnp.exp(scores_BHLM - scores_BHLM.max(-1, keepdims=True))
    return unscaled_BHLM * (1 / unscaled_BHLM.sum(-1, keepdims=True))


@jax.custom_vjp
def _attend(q_BHLK, k_BHMK, v_BHMK, hidden):
    return _attend_forward(q_BHLK, k_BHMK, v_BHMK, hidden)[0]


def _attend_forward(q_BHLK, k_BHMK, v_BHMK, hidden):
    p_BHLM = _weights(q_BHLK, k_BHMK, hidden).astype(v_BHMK.dtype)
    y_BHLK = jnp.einsum("bhlm,bhmk->bhlk", p_BHLM, v_BHMK)
    return y_BHLK, (q_BHLK, k_BHMK, v_BHMK, p_BHLM, y_BHLK, hidden)


def _attend_backward(kept, dy_BHLK):
    q_BHLK, k_BHMK, v_BHMK, p_BHLM, y_BHLK, hidden = kept
    dv_BHMK = jnp.einsum("bhlm,bhlk->bhmk", p_BHLM, dy_BHLK)
    dp_BHLM = jnp.einsum("bhlk,bhmk->bhlm", dy_BHLK, v_BHMK, preferred_element_type=jnp.float32)
    shared_BHL1 = (dy_BHLK * y_BHLK).sum(-1, keepdims=True, dtype=jnp.float32)  # sum over m of p dp
    ds_BHLM = (p_BHLM * (dp_BHLM - shared_BHL1) * q_BHLK.shape[-1] ** -0.5).astype(q_BHLK.dtype)
    dq_BHLK = jnp.einsum("bhlm,bhmk->bhlk", ds_BHLM, k_BHMK)
    return dq_BHLK, jnp.einsum("bhlm,bhlk->bhmk", ds_BHLM, q_BHLK), dv_BHMK, jnp.zeros_like(hidden)


_attend.defvjp(_attend_forward, _attend_backward)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); dropout on both when `train`; of the `last` positions if given."""

    num_heads: int
    mlp: int
    depth: int
    dtype: Any = jnp.float32
    activation: str = "gelu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x_BLD, mask_LL=None, cache=None, position=None, train=False, last=None):
        norm = lambda name: nn.LayerNorm(dtype=jnp.float32, name=name)
        y, cache = Attention(self.num_heads, self.depth, self.dtype, name="attention")(
            norm("norm_attention")(x_BLD), mask_LL, cache, position, last)
        drop = noise.Dropout(self.dropout, not train)
        x_BLD = (x_BLD if last is None else x_BLD[:, _kept(last)]) + drop(y)
        h_BLF = Dense(self.mlp, dtype=self.dtype, kernel_init=normal(1.0), name="up")(norm("norm_mlp")(x_BLD))
        out = Dense(x_BLD.shape[-1], dtype=self.dtype, kernel_init=normal((2 * self.depth) ** -0.5), name="down")
        return x_BLD + drop(out({"gelu": nn.gelu, "relu": nn.relu}[self.activation](h_BLF))), cache


def run(block: Block, remat: str, x_BLD: Array, mask_LL=None, **kw) -> Array:
    """The block's output over a whole sequence, without a cache; what `remat` (of REMAT) does not keep is computed
    again in the backward pass. XLA's CPU compiler finds it computed before and keeps it after all, unless told
    XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander."""
    one = lambda block, x_BLD: block(x_BLD, mask_LL, **kw)[0]
    policy = REMAT[remat]
    return one(block, x_BLD) if policy is None else nn.remat(one, policy=policy)(block, x_BLD)
