"""MesaNet (2506.05233): every query is answered by the least-squares fit to all keys and values read so far."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import fast_weights, mixing, network


class Mesa(mixing.Heads):
    """`fast_weights.mesa`, with a decay and a strength that are functions of the token."""

    chunk: int
    steps: int
    ridge: float

    def setup_memory(self):
        self.rate, self.strength = mixing.decay(self.num_heads), nn.Dense(self.num_heads)
        self.above = self.param("ridge", nn.initializers.zeros, (self.num_heads, self.size))

    def initial_memory(self, num):
        return {"memory": {name: jnp.zeros((num, self.width, self.size)) for name in "HS"}}

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        q, k, v, log_decay, beta = (a.swapaxes(1, 2) for a in (
            q_BLHK, k_BLHK, v_BLHK, -jax.nn.softplus(self.rate(x_BLD)), jax.nn.sigmoid(self.strength(x_BLD))))
        H_BHKK, S_BHKV = (mixing.matrices(state["memory"][name], self.num_heads) for name in "HS")
        ridge_HK = self.ridge + jax.nn.softplus(self.above)
        *new, o_BHLV = fast_weights.mesa(H_BHKK, S_BHKV, q, k, v, log_decay, beta, ridge_HK, steps=self.steps,
                                         chunk=self.chunk)
        return {"memory": dict(zip("HS", map(mixing.rows, new), strict=True))}, o_BHLV.swapaxes(1, 2)


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, chunk: int,
         steps: int, ridge: float) -> network.Network:
    """steps   of conjugate gradients for each token: with width / num_heads of them the solution is exact
    ridge   the least that is added to the keys' matrix; what is learned comes on top. chunk: as of `delta`
    """
    validate.positive(chunk=chunk, steps=steps, ridge=ridge)
    return mixing.make(spec, Mesa, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, chunk=chunk,
                       steps=steps, ridge=ridge)
