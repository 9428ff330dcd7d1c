"""DeltaNet (2406.06484) and Gated DeltaNet (2412.06464): each write first takes back what its key says already."""

from metalearn import validate
from metalearn.nn import mixing, network
from metalearn.nn.delta import Delta


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, chunk: int,
         gated: bool) -> network.Network:
    """S_t = a_t S_{t-1} + b_t k_t (v_t - k_t a_t S_{t-1})^T, with b in 0 to 1; a = 1 unless `gated`, then a function of
    the token: the error is of the decayed memory, as published.

    chunk   tokens that are computed at once, which changes no result
    """
    validate.positive(chunk=chunk)
    return mixing.make(spec, Delta, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, chunk=chunk,
                       decay="token" if gated else "none", erase=True)
