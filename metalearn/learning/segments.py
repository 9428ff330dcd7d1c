"""Episodes cut into segments, time-major: what a learner that trains online reads at once, and how a network reads it.

A segment past the episode's end is padded with positions that do not count, so any length serves any episode.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metalearn.measure import losses
from metalearn.nn import tokens
from metalearn.nn.network import Network
from metalearn.types import Array, Episodes, PyTree

INPUTS = ("x", "x_and_last_label", "x_and_shown_label")


class Segment(NamedTuple):
    """Some positions of a batch; weight_TB makes the sum over a batch its mean loss times its size."""

    x_TBX: Array
    y_TB: Array
    mask_TB: Array
    weight_TB: Array


def features(inputs: str, num: int, outputs: int) -> int:
    """Input features of a network, for a task with `num`."""
    return num + {"x": 0, "x_and_last_label": outputs, "x_and_shown_label": outputs + 1}[inputs]


def labels(y_BT: Array, targets: str, outputs: int) -> Array:
    """Labels as vectors (..., V): one-hot classes, or the target itself."""
    return jax.nn.one_hot(y_BT, outputs) if targets == "classes" else y_BT


def label_sum(y_BT: Array, weight_BT: Array, targets: str, outputs: int) -> Array:
    """(B, V) weighted sum of `labels`. Where one-hot labels of the episode would be large, one class after another: an
    update must not hold more than a segment, whatever the episode's length."""
    if targets == "classes" and y_BT.size * outputs > 2**16:
        of = lambda label: (weight_BT * (y_BT == label)).sum(1)
        return jnp.moveaxis(jax.lax.map(of, jnp.arange(outputs)), 0, -1)
    return jnp.einsum("bt,btv->bv", weight_BT, labels(y_BT, targets, outputs))


class Reader(NamedTuple):
    """How a learner reads its task.

    inputs   x | x_and_last_label | x_and_shown_label, see `learners.memnet`
    targets, outputs   kind and size of the answers
    steps    T, of a segment           remat, label_scale   see `learners.memnet`
    """

    inputs: str
    targets: str
    outputs: int
    steps: int
    remat: bool
    label_scale: float

    def token(self, x: Array, y: Array, shown: Array | None = None) -> Array:
        """(..., X), labels (-1: none) and, with x_and_shown_label, whether they are shown (..., 1) as one token."""
        y_V = labels(y, self.targets, self.outputs)
        power = 1.0 if self.targets == "classes" else y_V.shape[-1]
        if shown is None:
            return tokens.join([x, y_V], [x.shape[-1], power], [1.0, self.label_scale])
        return tokens.join([x, y_V * shown, shown], [x.shape[-1], power, 1.0], [1.0, self.label_scale, 1.0])

    def cut(self, batch: Episodes, start: Array, steps: int) -> Segment:
        """The `steps` positions from `start` (traced)."""

        def of(a_BT):
            short = -a_BT.shape[1] % steps
            a_BT = jnp.pad(a_BT, ((0, 0), (0, short), *[(0, 0)] * (a_BT.ndim - 2))) if short else a_BT
            return jnp.swapaxes(jax.lax.dynamic_slice_in_dim(a_BT, start, steps, axis=1), 0, 1)

        x_TBX = of(batch.x_BTX.reshape(*batch.x_BTX.shape[:2], -1))
        if self.inputs == "x_and_last_label":
            before_BT = jnp.roll(batch.y_BT, 1, axis=1)
            none = jnp.full_like(before_BT[:, :1], -1 if self.targets == "classes" else 0)
            x_TBX = self.token(x_TBX, of(jnp.concatenate([none, before_BT[:, 1:]], 1)))
        mask_TB = of(batch.mask_BT)
        if self.inputs == "x_and_shown_label":  # support; the last feature tells a shown zero from an queried one
            shown_TB1 = 1 - mask_TB[..., None]
            x_TBX = self.token(x_TBX, of(batch.y_BT), shown_TB1)
        scale = batch.mask_BT.shape[0] / jnp.maximum(batch.mask_BT.sum(), 1.0)
        return Segment(x_TBX, of(batch.y_BT), mask_TB, mask_TB * scale)

    def read(self, net: Network, params: PyTree, state: PyTree, segment: Segment, first: bool = False):
        """(loss_B, state, extras) of one segment: the function of `synthetic`.

        extras {logits (T, B, V), loss (T, B)}, with `first` also the state after its first step.
        """
        unroll = functools.partial(run, net, params)
        if not first:
            state, logits_TBV = unroll(state, segment.x_TBX)
            return self.score(logits_TBV, state, segment)
        early, first_1BV = unroll(state, segment.x_TBX[:1])
        state, rest_TBV = unroll(early, segment.x_TBX[1:])
        loss_B, state, extras = self.score(jnp.concatenate([first_1BV, rest_TBV]), state, segment)
        return loss_B, state, extras | {"first": early}

    def score(self, logits_TBV: Array, state: PyTree, segment: Segment):
        loss_TB = losses.position_loss(logits_TBV, segment.y_TB, self.targets)
        return (loss_TB * segment.weight_TB).sum(0), state, {"logits": logits_TBV, "loss": loss_TB}

    def read_all(self, net: Network, params: PyTree, most: int, segment: Segment):
        """`read` over a whole episode (of `most` steps); with `remat` only states between segments are kept."""
        (length, num), T = segment.mask_TB.shape, self.steps
        if not self.remat or length <= T:
            return self.read(net, params, None, segment)
        pad = lambda a: jnp.pad(a, ((0, -length % T), *[(0, 0)] * (a.ndim - 1)))
        pieces = jax.tree.map(lambda a: pad(a).reshape(-1, T, *a.shape[1:]), segment)

        def body(state, piece):
            loss_B, state, extras = jax.checkpoint(functools.partial(self.read, net))(params, state, piece)
            return state, (loss_B, extras)

        state, (loss_SB, extras) = jax.lax.scan(body, net.initial_state(params, num, most), pieces)
        joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:length], extras)
        return loss_SB.sum(0), state, joined


def run(net: Network, params: PyTree, state: PyTree, x_TBX: Array) -> tuple[PyTree, Array]:
    """(state, outputs_TBV): the network over a segment; segments are time-major, networks batch-major."""
    state, out_BTV = net.apply(params, state, jnp.swapaxes(x_TBX, 0, 1))
    return state, jnp.swapaxes(out_BTV, 0, 1)


def future_mask(batch: Episodes, boundary: Array) -> Array:
    """(B,) 1.0 for samples with something that counts at or after the boundary; the others' future gradient is 0."""
    return ((jnp.arange(batch.mask_BT.shape[1]) >= boundary) * batch.mask_BT).max(1)


def batch_id(batch: Episodes) -> Array:
    """A number that tells batches apart, so that a new one starts from a fresh state whatever came before it."""
    total = jnp.zeros((), jnp.uint32)
    for leaf in (batch.task_B, batch.index_BT, batch.y_BT):
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        total = total * 31 + (bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum()
    return total
