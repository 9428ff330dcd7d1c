"""Variable shared meta-learning: one small LSTM on every cell of a grid, weights shared, messages in both directions.

After Kirsch & Schmidhuber (2021) as GPICL uses it, one layer; the arrangement of the messages is ours. Cell (a, b)
reads its row's and its column's messages; what a row sends is the mean over its columns, and the other way round, so
the network commutes with permutations of inputs and of labels.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from metalearn.types import Array


class GridCell(nn.RNNCellBase):
    """One step on a rows x columns grid: inputs (x_BRI, y_BCI), output the columns' messages (B, C, messages)."""

    rows: int
    columns: int
    hidden: int
    messages: int
    ticks: int

    @nn.compact
    def __call__(self, carry, inputs):
        (c, h, row_BRI, column_BCI), (x_BRI, y_BCI) = carry, inputs
        cell = nn.OptimizedLSTMCell(self.hidden, name="lstm")
        to_row, to_column = nn.Dense(self.messages, name="to_row"), nn.Dense(self.messages, name="to_column")
        grid = (x_BRI.shape[0], self.rows, self.columns)
        for _ in range(self.ticks):
            row = jnp.concatenate([x_BRI, row_BRI], -1)[:, :, None]
            column = jnp.concatenate([y_BCI, column_BCI], -1)[:, None]
            both = jnp.concatenate([jnp.broadcast_to(row, (*grid, row.shape[-1])),
                                    jnp.broadcast_to(column, (*grid, column.shape[-1]))], -1)
            (c, h), _ = cell((c, h), both)
            row_BRI, column_BCI = to_row(h).mean(2), to_column(h).mean(1)
        return (c, h, row_BRI, column_BCI), column_BCI

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        B = input_shape[0]
        grid = jnp.zeros((B, self.rows, self.columns, self.hidden))
        return grid, grid, jnp.zeros((B, self.rows, self.messages)), jnp.zeros((B, self.columns, self.messages))

    @property
    def num_feature_axes(self):
        return 2


def _scan(cell: GridCell, carry, x, y):
    body = nn.scan(lambda cell, carry, inputs: cell(carry, inputs), variable_broadcast="params",
                   split_rngs={"params": False}, in_axes=1, out_axes=1)
    return body(cell, carry, (x, y))


class SymmetricVSML(nn.Module):
    """Tokens [x_t, y_{t-1}] (B, L, X + V) on the X x V grid; logits are the first entry of each label's message."""

    cell: GridCell

    @nn.compact
    def __call__(self, tokens_BLI: Array, carry=None):
        x_BLX, y_BLV = jnp.split(tokens_BLI, [self.cell.rows], axis=-1)
        carry = self.start(tokens_BLI.shape[0]) if carry is None else carry
        carry, out_BLVI = _scan(self.cell, carry, x_BLX[..., None], y_BLV[..., None])
        scale = self.param("scale", nn.initializers.constant(self.cell.rows**0.5), ())
        return carry, out_BLVI[..., 0] * scale  # the mean over rows shrinks with their number

    def start(self, num: int):
        return self.cell.initialize_carry(None, (num,))


class LinearVSML(nn.Module):
    """The grid without its symmetries: learned linear maps into the rows' messages and out of the columns'."""

    num_outputs: int
    cell: GridCell

    @nn.compact
    def __call__(self, tokens_BLI: Array, carry=None):
        B, L, _ = tokens_BLI.shape
        k, m = self.cell.rows, self.cell.messages
        x = nn.Dense(k * m, name="embed")(tokens_BLI).reshape(B, L, k, m)
        carry = self.start(B) if carry is None else carry
        # columns have no input of their own, and differ only by what is read from them: a code makes them distinct
        code = self.param("code", nn.initializers.normal(1.0), (k, m))
        carry, out = _scan(self.cell, carry, x, jnp.broadcast_to(code, (B, L, k, m)))
        return carry, nn.Dense(self.num_outputs, name="head")(out.reshape(B, L, k * m))

    def start(self, num: int):
        return self.cell.initialize_carry(None, (num,))
