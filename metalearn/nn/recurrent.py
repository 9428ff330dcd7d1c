"""What recurrent networks are made of: the scan over a segment, the LSTM, the outer-product LSTM."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.lift import Out  # pyright: ignore[reportPrivateImportUsage]: flax names no other place

from metalearn.types import Array, PyTree


class Recurrent(nn.Module):
    """A recurrent network: (state, tokens_BLI) -> (state, outputs_BLV). What does not wait for the state happens for
    all steps at once, before and after the scan. Subclasses define

      initial_state(num, length) -> state         length is ignored
      step(state, u_B...) -> (state, y_BD)

    and the layers `project`, before the scan, and `readout`, after it, or methods in their place.
    """

    outputs: int
    unroll: int

    def __call__(self, state: PyTree, tokens_BLI: Array):
        if state is None:
            state = self.initial_state(tokens_BLI.shape[0], tokens_BLI.shape[1])
        u_BL = self.project_inputs(tokens_BLI)
        length = tokens_BLI.shape[1]
        if length == 1 or self.is_initializing():
            state, y_BD = self.advance(state, (jax.tree.map(lambda a: a[:, 0], u_BL), jnp.int32(0)))
            return state, self.read_out(y_BD[:, None])
        position_BL = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), tokens_BLI.shape[:2])
        scan = nn.scan(lambda net, state, now: net.advance(state, (now[0], now[1][0])), variable_broadcast="params",
                       variable_axes={"intermediates": Out(1)}, split_rngs={"params": False}, in_axes=1, out_axes=1,
                       unroll=min(self.unroll, length))
        state, y_BLD = scan(self, state, (u_BL, position_BL))
        return state, self.read_out(y_BLD)

    def project_inputs(self, tokens_BLI: Array) -> PyTree:
        """u_BL..., what `step` is given of each token."""
        return self.project(tokens_BLI)

    def read_out(self, y_BLD: Array) -> Array:
        """outputs_BLV of what `step` gave."""
        return self.readout(y_BLD)

    def advance(self, state: PyTree, now: tuple[PyTree, Array]):
        """`step`, beside the position within the segment, which taps read (`nn.taps`)."""
        return self.step(state, now[0])


def lstm(c_BD: Array, gates_BD: Array) -> dict[str, Array]:
    """The LSTM update from the four gates side by side; the forget gate starts open (+1)."""
    i, f, g, o = jnp.split(gates_BD, 4, axis=-1)
    c_BD = jax.nn.sigmoid(f + 1) * c_BD + jax.nn.sigmoid(i) * jnp.tanh(g)
    return {"h": jax.nn.sigmoid(o) * jnp.tanh(c_BD), "c": c_BD}


CONTROLLERS = ("lstm", "ffn")


class Controller(nn.Module):
    """An LSTM in one fused gate matmul, or (`ffn`) one tanh layer: an LSTM can learn to bypass a memory beside it.

    (state, *parts_BX) -> (state, h_BD); `projected_BD` is an input projection made outside the scan, `gate_width` wide.
    """

    kind: str
    size: int
    dtype: Any = None

    @nn.compact
    def __call__(self, state: dict, *parts_BX: Array, projected_BD: Array | None = None) -> tuple[dict, Array]:
        inputs = [*parts_BX, state["h"]] if self.kind == "lstm" else list(parts_BX)
        gates_BD: Any = projected_BD if projected_BD is not None else 0.0
        if inputs:
            dense = nn.Dense(self.gate_width, use_bias=projected_BD is None, dtype=self.dtype, name="gates")
            gates_BD = gates_BD + dense(jnp.concatenate(inputs, -1))
        if self.kind == "ffn":
            return {}, jnp.tanh(gates_BD)
        state = lstm(state["c"], gates_BD)
        return state, state["h"]

    @nn.nowrap
    def initial_state(self, *shape: int) -> dict:
        """Zeros of the leading axes `shape`."""
        zeros = jnp.zeros((*shape, self.size))
        return {} if self.kind == "ffn" else {"h": zeros, "c": zeros}

    @property
    def gate_width(self) -> int:
        return self.size * (4 if self.kind == "lstm" else 1)


class OuterProductLSTMCell(nn.Module):
    """LSTM whose cell is `num_heads` matrices of size x size, gated by outer products (GPICL, appendix [M]).

    f = sigmoid(G_f + 1); C <- f * C + sigmoid(G_i) * G_g; r = C^T q; h = sigmoid(o) * tanh(r), heads flattened,
    with G_n = (tanh(a_n) * softplus(w_n)) outer tanh(b_n), w = 0 at the start (one w per head and gate: ours).
    State {C: (B, H, K, K), h: (B, H K)}.
    """

    size: int
    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, state: dict, x_BI: Array) -> tuple[dict, Array]:
        C_BHKK, h_BD = state["C"], state["h"]
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
        return {"C": C_BHKK, "h": h_BD}, h_BD

    @nn.nowrap
    def initial_state(self, num: int) -> dict:
        H, K = self.num_heads, self.size
        return {"C": jnp.zeros((num, H, K, K)), "h": jnp.zeros((num, H * K))}
