"""The record of every embedding of examples, and the policies for its normalisation statistics. Entries are the files
of `backbones/`.

`norm` says whose statistics normalise (papers differ in it silently):

  batch      those of whatever is shown together: support and queries apart. Transductive: queries see each other
  episode    those of the episode's support, for support and queries
  running    training: as `batch` (over all tasks at once where they share weights); prediction: moving averages
  layer      each image by itself
  none       no normalisation, only a bias

`conv` is patches (per-task weights) or lax (shared weights; less memory): the same function either way.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import lookup, validate
from metalearn.nn import taps
from metalearn.types import Array, PyTree

Stats = list[tuple[Array, Array]]  # (mean_D, var_D) of each normalisation layer, in the order of the layers
NORMS = ("batch", "episode", "running", "layer", "none")


@dataclasses.dataclass(frozen=True)
class Backbone:
    """init(key, x_N..., context=None) -> params; apply(params, x_N..., stats=None, context=None) -> (h_ND, stats).

    `stats` are the statistics that were used: those given, else those of the input. `features` is D.
    """

    init: Callable
    apply: Callable
    features: int
    norm: str


def make(backbone: Mapping[str, Any], spec) -> Backbone:
    """The embedding that `backbone` = {"name": ..., its sizes} describes, for a task's inputs; ConfigError names
    `backbone.<field>`."""
    with validate.within("backbone"):
        return lookup.of_block("backbones", backbone, spec)


def of(net: nn.Module, features: int, norm: str) -> Backbone:
    """The record of a linen module, (x_N, stats, context) -> (h_ND, stats)."""

    def init(key, x_N, context=None):
        return net.init(key, x_N, None, context).get("params", {})

    def apply(params, x_N, stats=None, context=None):
        return taps.apply(net, params, x_N, stats, context)

    return Backbone(init, apply, features, norm)


def check_image(spec, norm: str, conv: str, halvings: int) -> tuple[int, int]:
    """Checks what image networks share; the side lengths that are left after `halvings`."""
    validate.one_of(NORMS, norm=norm)
    validate.one_of(("patches", "lax"), conv=conv)
    shape = spec.image_shape
    validate.require(shape is not None, "name", "an image network", "the task gives plain vectors; use mlp or pixels")
    validate.require(min(shape[:2]) >= 2**halvings, "image_size", f"{shape[0]}x{shape[1]}",
                     f"{halvings} max-pools need sides of at least {2**halvings}: set task.image_size, or fewer blocks")
    return shape[0] // 2**halvings, shape[1] // 2**halvings


def kind(norm: str) -> str:
    """What a normalisation layer does, whoever's statistics it is given: batch | layer | none."""
    return "batch" if norm in ("batch", "episode", "running") else norm


def start(net: Backbone, params: PyTree, x_BTX: Array) -> PyTree:
    """The carry of a learner with shared weights: the first batch's statistics under `running`, else ()."""
    return net.apply(params, _merge(x_BTX))[1] if net.norm == "running" else ()


def embed(net: Backbone, params: PyTree, carry: PyTree, x_BSX: Array, x_BQX: Array, train: bool,
          decay: float = 0.95) -> tuple[Array, Array, PyTree]:
    """(h_BSD, h_BQD, carry) of support and queries, one set of weights for all tasks, under the net's norm policy."""
    S = x_BSX.shape[1]
    if net.norm == "batch":
        each = taps.vmap(lambda x: net.apply(params, x)[0])
        return each(x_BSX), each(x_BQX), carry
    if net.norm == "episode":
        def one(x_SX, x_QX):
            h_SD, stats = net.apply(params, x_SX)
            return h_SD, net.apply(params, x_QX, stats)[0]
        return *taps.vmap(one)(x_BSX, x_BQX), carry
    x_BTX = jnp.concatenate([x_BSX, x_BQX], 1)
    given = carry if net.norm == "running" and not train else None
    h_ND, stats = net.apply(params, _merge(x_BTX), given)
    if net.norm == "running" and train:
        carry = moving(carry, stats, decay)
    h_BTD = h_ND.reshape(*x_BTX.shape[:2], -1)
    return h_BTD[:, :S], h_BTD[:, S:], carry


def moving(old: PyTree, new: PyTree, decay: float = 0.95) -> PyTree:
    """Moving averages of statistics."""
    return jax.tree.map(lambda o, n: decay * o + (1 - decay) * jax.lax.stop_gradient(n), old, new)


def _merge(x_BTX: Array) -> Array:
    return x_BTX.reshape(-1, *x_BTX.shape[2:])
