"""Variable shared meta-learning: one small LSTM on every cell of a grid, weights shared, messages in both directions.

After Kirsch & Schmidhuber (2021) as GPICL uses it, one layer; the arrangement of the messages is ours. Cell (a, b)
reads its row's and its column's messages; what a row sends is the mean over its columns, and the other way round, so
the grid commutes with permutations of its rows and of its columns.
"""

import flax.linen as nn
import jax.numpy as jnp

from metalearn.nn import recurrent
from metalearn.types import Array, PyTree


class GridCell(nn.Module):
    """One step on a rows x columns grid: (state, x_BRI, y_BCI) -> (state, the columns' messages, (B, C, messages)).

    State {grid: {h, c: (B, R, C, hidden)}, messages: {row: (B, R, messages), column: (B, C, messages)}}.
    """

    rows: int
    columns: int
    hidden: int
    messages: int
    ticks: int

    def setup(self):
        self.lstm = recurrent.Controller("lstm", self.hidden)
        self.to_row, self.to_column = nn.Dense(self.messages), nn.Dense(self.messages)

    def __call__(self, state: PyTree, x_BRI: Array, y_BCI: Array) -> tuple[PyTree, Array]:
        cells, row_BRI, column_BCI = state["grid"], state["messages"]["row"], state["messages"]["column"]
        grid = (x_BRI.shape[0], self.rows, self.columns)
        for _ in range(self.ticks):
            row = jnp.concatenate([x_BRI, row_BRI], -1)[:, :, None]
            column = jnp.concatenate([y_BCI, column_BCI], -1)[:, None]
            cells, h = self.lstm(cells, jnp.broadcast_to(row, (*grid, row.shape[-1])),
                                 jnp.broadcast_to(column, (*grid, column.shape[-1])))
            row_BRI, column_BCI = self.to_row(h).mean(2), self.to_column(h).mean(1)
        return {"grid": cells, "messages": {"row": row_BRI, "column": column_BCI}}, column_BCI

    @nn.nowrap
    def initial_state(self, num: int) -> PyTree:
        cells = {name: jnp.zeros((num, self.rows, self.columns, self.hidden)) for name in ("h", "c")}
        messages = {"row": jnp.zeros((num, self.rows, self.messages)),
                    "column": jnp.zeros((num, self.columns, self.messages))}
        return {"grid": cells, "messages": messages}
