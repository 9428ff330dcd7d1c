"""The record of every sequence network, and how it is made of a linen module. Entries are the files of `networks/`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import lookup, validate
from metalearn.nn import taps
from metalearn.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Network:
    """Pure functions of one network that reads tokens in order.

    init(key, tokens_BLI) -> params
    initial_state(params, num, length) -> state     before the first token of `num` sequences, as
                                                    {group: {leaf: (num, ...)}}; the group `memory` holds one row per
                                                    slot, (num, M, ...), every other group vectors; `length` is read
                                                    by attention caches alone
    apply(params, state, tokens_BLI) -> (state, outputs_BLV f32)    a segment at once; state None is the start of a
                                                    sequence, and a network with a cache then keeps none
    step(params, state, token_BI) -> (state, outputs_BV)            one token
    state_size(params, length) -> int               floats of one sequence's state

    causal      outputs depend on tokens up to their own alone
    recurrent   the size of the state does not depend on the length
    masks       apply also takes mask_LL (bool, queries by keys), last (outputs of the last so many tokens only) and
                place_L (int, the place of each token, where places have a code)
    dtypes      what matrix products can be computed in
    """

    init: Callable
    initial_state: Callable
    apply: Callable
    step: Callable
    state_size: Callable
    causal: bool
    recurrent: bool
    masks: bool
    dtypes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """What a network is made for.

    outputs     V
    features    X; a token begins with the input x_t, of so many entries
    layout      what a token holds: the layouts of `learners.incontext`, the inputs of `learners.memnet`, or
                support_query (`learners.embedded_transformer`)
    length      tokens of the longest sequence (places, where places have a code)
    dtype       what matrix products are computed in
    unroll      steps per iteration of a compiled scan
    """

    outputs: int
    features: int
    layout: str
    length: int
    dtype: str
    unroll: int


def make(network: Mapping[str, Any], spec: NetworkSpec) -> Network:
    """The network that `network` = {"name": ..., its sizes} describes; ConfigError names `network.<field>`, `dtype`."""
    with validate.within("network"):
        net = lookup.of_block("networks", network, spec)
    validate.require(spec.dtype in net.dtypes, "dtype", spec.dtype,
                     f"network.name={network['name']} computes in {' or '.join(net.dtypes)} only")
    return net


def of(module: nn.Module, *, recurrent: bool, masks: bool = False, dtypes: tuple[str, ...] = ("float32",)) -> Network:
    """The record of a linen module with `initial_state(num, length)` and `__call__(state, tokens_BLI, ...)`."""

    def init(key, tokens_BLI: Array) -> PyTree:
        return module.init(key, None, tokens_BLI[:, :1])["params"]  # parameters know no length

    def initial_state(params: PyTree, num: int, length: int) -> PyTree:
        return module.apply({"params": params}, num, length, method="initial_state")

    def apply(params: PyTree, state: PyTree, tokens_BLI: Array, **options):
        return taps.apply(module, params, state, tokens_BLI, **options)

    def step(params: PyTree, state: PyTree, token_BI: Array):
        state, outputs_BLV = apply(params, state, token_BI[:, None])
        return state, outputs_BLV[:, 0]

    def state_size(params: PyTree, length: int) -> int:
        state = jax.eval_shape(lambda p: initial_state(p, 1, length), params)
        return sum(leaf.size for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating))

    return Network(init, initial_state, apply, step, state_size, True, recurrent, masks, dtypes)
