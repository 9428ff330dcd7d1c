"""The mixer of the linear and the delta family: a matrix per head, written by every token."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.nn import fast_weights, mixing


class Delta(mixing.Heads):
    """`fast_weights.delta`; decay none | head | token, and `erase`, without which b = 1 and it is linear attention."""

    chunk: int
    decay: str
    erase: bool

    def setup_memory(self):
        if self.decay == "token":  # Mamba-2's form: exp(-e^a softplus(w x + c)), .999 to .9 at the start
            self.rate = nn.Dense(self.num_heads, bias_init=lambda *_: jnp.linspace(-6.9, -2.3, self.num_heads))
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
