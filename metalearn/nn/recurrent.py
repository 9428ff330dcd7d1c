"""Recurrent networks over tokens, scanned by flax's `nn.RNN`; and the outer-product LSTM."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.types import Array


class Recurrent(nn.Module):
    """Linear in, a cell scanned over the episode, linear out: tokens_BLI [, carry] -> (carry, logits_BLV f32)."""

    num_outputs: int
    cell: nn.RNNCellBase
    width: int

    def setup(self):
        self.embed = nn.Dense(self.width)
        self.rnn = nn.RNN(self.cell, return_carry=True)
        self.head = nn.Dense(self.num_outputs)

    def __call__(self, tokens_BLI: Array, carry=None):
        carry, h_BLD = self.rnn(self.embed(tokens_BLI), initial_carry=carry)
        return carry, self.head(h_BLD.astype(jnp.float32))

    def start(self, num: int):
        """The carry before the first token of `num` episodes."""
        return self.cell.initialize_carry(jax.random.key(0), (num, self.width))


class OuterProductLSTMCell(nn.RNNCellBase):
    """LSTM whose cell is `num_heads` matrices of size x size, gated by outer products (GPICL, appendix [M]).

    f = sigmoid(G_f + 1); C <- f * C + sigmoid(G_i) * G_g; r = C^T q; h = sigmoid(o) * tanh(r), heads flattened,
    with G_n = (tanh(a_n) * softplus(w_n)) outer tanh(b_n), w = 0 at the start (one w per head and gate: ours).
    """

    size: int
    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, carry, x_BI):
        C_BHKK, h_BD = carry
        H, K = self.num_heads, self.size
        z = nn.Dense(8 * K * H, dtype=self.dtype, name="gates")(jnp.concatenate([x_BI, h_BD], -1))
        z = z.astype(jnp.float32).reshape(*z.shape[:-1], H, 8, K)
        a_B3HK, b_B3HK = (jnp.moveaxis(z[..., i:i + 3, :], -2, 1) for i in (0, 3))
        q_BHK, o_BHK = z[..., 6, :], z[..., 7, :]
        scale_3H = jax.nn.softplus(self.param("scale", nn.initializers.zeros, (3, H)))
        G = jnp.einsum("bghk,bghl->gbhkl", jnp.tanh(a_B3HK) * scale_3H[None, ..., None], jnp.tanh(b_B3HK))
        i, g, f = jax.nn.sigmoid(G[0]), G[1], jax.nn.sigmoid(G[2] + 1)
        C_BHKK = f * C_BHKK + i * g
        r_BHK = jnp.einsum("bhkl,bhk->bhl", C_BHKK, q_BHK)
        h_BD = (jax.nn.sigmoid(o_BHK) * jnp.tanh(r_BHK)).reshape(x_BI.shape[0], H * K)
        return (C_BHKK, h_BD), h_BD

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        B = input_shape[0]
        return (jnp.zeros((B, self.num_heads, self.size, self.size)), jnp.zeros((B, self.num_heads * self.size)))

    @property
    def num_feature_axes(self):
        return 1
