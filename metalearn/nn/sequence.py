"""Sequence networks by name, behind one record: parallel form, streaming form, state size.

  transformer   depth, width, num_heads, mlp, positions (learned absolute positions; false has none)
  lstm          width
  outer_lstm    size, num_heads (outer-product LSTM: a recurrent net with a large state)
  vsml          hidden, messages, ticks (weight-shared LSTMs on the X x V grid; permutation-symmetric in and out)
  vsml_nosym    grid, hidden, messages, ticks (the same grid k x k between learned linear maps)
  mlp           width (two hidden layers on x_t alone: it cannot learn in context)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import recurrent, transformer, vsml


@dataclasses.dataclass(frozen=True)
class Sequence:
    """init(key, tokens) -> params; apply(params, tokens_BLI, mask_LL) -> logits_BLV (f32).

    A transformer's apply takes `last` too: logits of the last so many positions only.

    state_size(length)                                   floats readable after `length` positions
    stream_init(params, num, slots) -> state
    stream_step(params, state, token_B1I, t) -> (state, logits_B1V)
    stream_query(params, state, support_B1I, query_B1I, t)   transformer with the `query` layout
    attention(params, tokens_BLI, mask_LL) -> [weights_BHLL]  transformer: one array per block
    """

    init: Callable
    apply: Callable
    state_size: Callable[[int], int]
    stream_init: Callable
    stream_step: Callable
    stream_query: Callable | None = None
    attention: Callable | None = None


def make(network: dict, *, ways: int, features: int, layout: str, slots: int, dtype: Any) -> Sequence:
    """The network described by `network`, for episodes of `slots` tokens; ConfigError names `network.<field>`."""
    kinds = {"transformer": _transformer, "lstm": _lstm, "outer_lstm": _outer_lstm, "vsml": _vsml,
             "vsml_nosym": _vsml_nosym, "mlp": _mlp}
    with validate.within("network"):
        name = network.get("name", "")
        validate.one_of(kinds, name=name)
        sizes = {k: v for k, v in network.items() if k != "name"}
        context = dict(ways=ways, features=features, layout=layout, slots=slots, dtype=dtype)
        return validate.call(kinds[name], context, **sizes)


def _transformer(context, *, depth: int, width: int, num_heads: int, mlp: int, positions: bool) -> Sequence:
    validate.positive(depth=depth, width=width, num_heads=num_heads, mlp=mlp)
    validate.multiple_of("num_heads", num_heads, width=width)
    net = transformer.Transformer(context["ways"], depth, width, num_heads, mlp,
                                  positions=context["slots"] if positions else 0, dtype=context["dtype"])
    seen = lambda slots, upto: jnp.arange(slots)[None] <= upto

    def step(params, cache, token_B1I, t):
        mask = seen(cache[0]["k"].shape[1], t)
        return net.apply({"params": params}, cache, token_B1I, t, mask, method="extend")

    def query(params, cache, support_B1I, query_B1I, t):
        # the support of t - 1 takes the slot that the query of t - 1 had; at t = 0 there is none: slot 0 is
        # written, read by nobody, and overwritten by the query
        slots = cache[0]["k"].shape[1]
        last = jnp.maximum(t - 1, 0)
        cache, _ = net.apply({"params": params}, cache, support_B1I, last, seen(slots, last), method="extend")
        return net.apply({"params": params}, cache, query_B1I, t, seen(slots, t), method="extend")

    return Sequence(
        init=lambda key, tokens: net.init(key, tokens)["params"],
        apply=lambda params, tokens, mask=None, last=None: net.apply({"params": params}, tokens, mask, last),
        state_size=lambda length: 2 * width * depth * length,
        stream_init=lambda params, num, slots: net.empty_cache(num, slots),
        stream_step=step, stream_query=query,
        attention=lambda params, tokens, mask=None: transformer.attention(net, params, tokens, mask))


def _recurrent(net: nn.Module, state_size: int) -> Sequence:
    apply = lambda params, tokens, mask=None: net.apply({"params": params}, tokens)[1]
    return Sequence(
        init=lambda key, tokens: net.init(key, tokens)["params"], apply=apply,
        state_size=lambda length: state_size,
        stream_init=lambda params, num, slots: net.apply({"params": params}, num, method="start"),
        stream_step=lambda params, state, token, t: net.apply({"params": params}, token, state))


def _lstm(context, *, width: int) -> Sequence:
    validate.positive(width=width)
    cell = nn.OptimizedLSTMCell(width, dtype=context["dtype"])
    return _recurrent(recurrent.Recurrent(context["ways"], cell, width), 2 * width)


def _outer_lstm(context, *, size: int, num_heads: int) -> Sequence:
    validate.positive(size=size, num_heads=num_heads)
    cell = recurrent.OuterProductLSTMCell(size, num_heads, dtype=context["dtype"])
    return _recurrent(recurrent.Recurrent(context["ways"], cell, size * num_heads),
                      num_heads * size * size + num_heads * size)


def _vsml(context, *, hidden: int, messages: int, ticks: int) -> Sequence:
    validate.positive(hidden=hidden, messages=messages, ticks=ticks)
    validate.require(context["layout"] == "shifted", "name", "vsml", "needs layout=shifted (its grid is X x V)")
    rows, columns = context["features"], context["ways"]
    cell = vsml.GridCell(rows, columns, hidden, messages, ticks)
    return _recurrent(vsml.SymmetricVSML(cell), rows * columns * 2 * hidden + (rows + columns) * messages)


def _vsml_nosym(context, *, grid: int, hidden: int, messages: int, ticks: int) -> Sequence:
    validate.positive(grid=grid, hidden=hidden, messages=messages, ticks=ticks)
    cell = vsml.GridCell(grid, grid, hidden, messages, ticks)
    return _recurrent(vsml.LinearVSML(context["ways"], cell), grid * grid * 2 * hidden + 2 * grid * messages)


class MLP(nn.Module):
    """Two hidden layers of equal width, ReLU, on the first `features` entries of each token (x_t alone)."""

    num_outputs: int
    width: int
    features: int

    @nn.compact
    def __call__(self, tokens_BLI):
        h = nn.relu(nn.Dense(self.width)(tokens_BLI[..., : self.features]))
        return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(self.width)(h)))


def _mlp(context, *, width: int) -> Sequence:
    validate.positive(width=width)
    net = MLP(context["ways"], width, context["features"])
    apply = lambda params, tokens, mask=None: net.apply({"params": params}, tokens)
    return Sequence(
        init=lambda key, tokens: net.init(key, tokens)["params"], apply=apply, state_size=lambda length: 0,
        stream_init=lambda params, num, slots: (),
        stream_step=lambda params, state, token, t: (state, apply(params, token)))

