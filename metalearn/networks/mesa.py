"""MesaNet (2506.05233): what a ridge regression of values on keys so far says of the query, solved at every token."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import fast_weights, mixing, network


class Mesa(mixing.Heads):
    """`fast_weights.mesa`, with forget and input gates of the token and a learned ridge of at least .25 per entry."""

    chunk: int
    iterations: int

    def setup_memory(self):
        self.rate = nn.Dense(self.num_heads, bias_init=lambda *_: jnp.full(self.num_heads, -6.9))
        self.strength = nn.Dense(self.num_heads)
        self.ridge = self.param("ridge", lambda _: jnp.ones((self.num_heads, self.size)))

    def initial_memory(self, num):
        zeros = jnp.zeros((num, self.width, self.size))
        return {"memory": {"R": zeros, "G": zeros}}

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        log_decay_BLH = -jax.nn.softplus(self.rate(x_BLD))
        parts = (q_BLHK, k_BLHK, v_BLHK, log_decay_BLH, jax.nn.sigmoid(self.strength(x_BLD)))
        memory, o_BHLK = fast_weights.mesa(
            {k: mixing.matrices(a, self.num_heads) for k, a in state["memory"].items()},
            *(a.swapaxes(1, 2) for a in parts), 0.25 + jax.nn.softplus(self.ridge),
            iterations=self.iterations, chunk=self.chunk)
        return {"memory": {k: mixing.rows(a) for k, a in memory.items()}}, o_BHLK.swapaxes(1, 2)


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, chunk: int,
         iterations: int) -> network.Network:
    """iterations: steps of conjugate gradients; as many as a head has entries (width / num_heads) solve it.

    chunk   tokens that are computed at once, which changes no result
    """
    validate.positive(chunk=chunk, iterations=iterations)
    return mixing.make(spec, Mesa, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, chunk=chunk,
                       iterations=iterations)
