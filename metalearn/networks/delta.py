"""A matrix per head that every token writes: linear attention, retention (2307.08621), DeltaNet (2406.06484), Gated
DeltaNet (2412.06464)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import fast_weights, mixing, network


class Delta(mixing.Heads):
    """`fast_weights.delta`; without `erase` b = 1."""

    chunk: int
    decay: str
    erase: bool

    def setup_memory(self):
        if self.decay == "token":
            self.rate = mixing.decay(self.num_heads)
        if self.erase:
            self.strength = nn.Dense(self.num_heads)

    def initial_memory(self, num):
        return {"memory": {"S": jnp.zeros((num, self.width, self.size))}}

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        log_decay_BLH = jnp.zeros(q_BLHK.shape[:3])
        if self.decay == "head":
            log_decay_BLH += jnp.log1p(-(2.0 ** (-5 - jnp.arange(self.num_heads))))
        elif self.decay == "token":
            log_decay_BLH = -jax.nn.softplus(self.rate(x_BLD))
        beta_BLH = jax.nn.sigmoid(self.strength(x_BLD)) if self.erase else jnp.ones(q_BLHK.shape[:3])
        parts = (a.swapaxes(1, 2) for a in (q_BLHK, k_BLHK, v_BLHK, log_decay_BLH, beta_BLH))
        S_BHKV, o_BHLV = fast_weights.delta(mixing.matrices(state["memory"]["S"], self.num_heads), *parts,
                                            erase=self.erase, chunk=self.chunk)
        return {"memory": {"S": mixing.rows(S_BHKV)}}, o_BHLV.swapaxes(1, 2)


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, chunk: int,
         decay: str, erase: bool) -> network.Network:
    """S_t = a_t S_{t-1} + b_t k_t (v_t - k_t a_t S_{t-1})^T: the delta rule; the error is of the decayed memory.

    erase   False: nothing is taken back first, b = 1: linear attention
    decay   none (a = 1) | head (fixed for each, from 1 - 1/32 on: retention) | token (a function of the token)
    chunk   tokens that are computed at once, which changes no result
    """
    validate.one_of(("none", "head", "token"), decay=decay)
    validate.positive(chunk=chunk)
    return mixing.make(spec, Delta, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, chunk=chunk,
                       decay=decay, erase=erase)
