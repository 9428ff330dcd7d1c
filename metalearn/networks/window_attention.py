"""Softmax attention over the last tokens, in the blocks of the linear and delta family: their control."""

from metalearn import validate
from metalearn.nn import mixing, network, transformer


class WindowAttention(mixing.Heads):
    window: int

    def initial_memory(self, num):
        return {"seen": mixing.seen_nothing(num, self.window, self.num_heads, self.size)}

    def mix(self, state, q_BLHK, k_BLHK, v_BLHK, x_BLD, fresh):
        seen, k_BMHK, v_BMHK, mask = mixing.look_back(state["seen"], k_BLHK, v_BLHK, fresh)
        return {"seen": seen}, transformer.attend(q_BLHK * self.size, k_BMHK, v_BMHK, mask)


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int,
         window: int) -> network.Network:
    """window: tokens that a query sees, its own the last of them. Queries and keys have length 1, and their product is
    scaled to sqrt(width / num_heads) at most."""
    validate.positive(window=window)
    return mixing.make(spec, WindowAttention, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv,
                       window=window)
