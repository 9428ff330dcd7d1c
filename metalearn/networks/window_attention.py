"""Softmax attention over the last tokens, in the blocks of the linear and delta family: their control."""

from metalearn import validate
from metalearn.nn import mixing, network


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int,
         window: int) -> network.Network:
    """window: tokens that a query sees, its own the last of them. Queries and keys have length 1, and their product is
    scaled to sqrt(width / num_heads) at most."""
    validate.positive(window=window)
    return mixing.make(spec, mixing.WindowAttention, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv,
                       window=window)
