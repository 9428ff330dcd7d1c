"""Linear attention, and with a decay per head (retention, 2307.08621): the controls of the delta family."""

from metalearn import validate
from metalearn.nn import mixing, network
from metalearn.nn.delta import Delta


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, chunk: int,
         decay: str) -> network.Network:
    """S_t = a S_{t-1} + k_t v_t^T: decay none (a = 1) | head (fixed, from 1 - 1/32 on: retention) | token (learned, a
    function of the token).

    chunk   tokens that are computed at once, which changes no result
    """
    validate.one_of(("none", "head", "token"), decay=decay)
    validate.positive(chunk=chunk)
    return mixing.make(spec, Delta, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv, chunk=chunk,
                       decay=decay, erase=False)
