"""Synthetic gradients at segment boundaries (DNI, arXiv 1608.05343): the gradient rule, its targets, its health.

An episode is cut into segments of T steps; s_k is the whole recurrent state, memory included, at boundary k, and L_k
the loss inside segment k. With a feedback model G that says what gradient the future will send back,

  J_k(theta, s_k) = L_k(theta, s_k) + gamma <stop[G(s_{k+1})], s_{k+1}(theta, s_k)>     last segment: no second term
  g_theta = dJ_k/dtheta           delta*_k = dJ_k/ds_k           L_SG = |G(stop[s_k]) - delta*_k|^2

Losses are sums over samples here, so that messages and targets are per sample and do not know the batch size; the
caller divides. BP(lambda) (Pemberton & Costa, TMLR 2024) replaces the one-step target by eligibility traces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalearn.types import Array, Mean, PyTree

EPS = 1e-12


class Segment(NamedTuple):
    """What one segment gives.

    grads   dJ/dparams, summed over samples      target  dJ/dstate, per sample
    state   the next boundary's state             delta   what was injected there, per sample
    aux     the segment function's own extras
    """

    grads: PyTree
    target: PyTree
    state: PyTree
    delta: PyTree
    aux: Any


def grads_by_synthetic(segment: Callable, params: PyTree, state: PyTree, feedback: Callable | None, *,
                       true_rate: float = 1.0, synthetic_rate: float = 1.0,
                       auxiliary: Callable | None = None) -> Segment:
    """The gradient of one segment with the future's gradient injected at its end.

    segment(params, state) -> (loss_B, state, aux)
    feedback(state, aux) -> delta          what to inject, a tree like the state; None injects nothing (truncated BPTT)
    true_rate, synthetic_rate   weights of the two parts of `grads`; the target has them at 1
    auxiliary(params, aux, delta) -> loss_B        more loss, once what is injected is known (DNI+Aux); it moves the
                                                   parameters and is no part of the target, which is of the task alone
    """

    def objective(params, state):
        loss_B, after, aux = segment(params, state)
        after_stopped = jax.lax.stop_gradient(after)
        delta = jax.lax.stop_gradient(feedback(after_stopped, jax.lax.stop_gradient(aux))) if feedback else None
        more = auxiliary(params, aux, delta).sum() if auxiliary else jnp.zeros(())
        return (loss_B.sum(), inner(delta, after) if feedback else 0.0, more), (after_stopped, delta, aux)

    if feedback is None:
        grads, (after, delta, aux) = jax.grad(lambda p: _with_aux(objective(p, state)), has_aux=True)(params)
        zeros = jax.tree.map(jnp.zeros_like, state)
        return Segment(grads, zeros, after, zeros, aux)
    if true_rate == synthetic_rate == 1 and auxiliary is None:
        (grads, target), (after, delta, aux) = jax.grad(
            lambda p, s: _with_aux(objective(p, s)), argnums=(0, 1), has_aux=True)(params, state)
        return Segment(grads, target, after, delta, aux)
    _, pull, (after, delta, aux) = jax.vjp(objective, params, state, has_aux=True)
    own, injected, more = (pull(tuple(jnp.eye(3)[i])) for i in range(3))
    grads = jax.tree.map(lambda a, b, c: true_rate * (a + c) + synthetic_rate * b, own[0], injected[0], more[0])
    return Segment(grads, jax.tree.map(jnp.add, own[1], injected[1]), after, delta, aux)


def _with_aux(out):
    (loss, injected, _), rest = out
    return loss + injected, rest


def inner(a: PyTree, b: PyTree) -> Array:
    """<a, b> over all leaves."""
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)))


def norm_B(tree: PyTree) -> Array:
    """Per-sample norm over all leaves (B, ...); finite gradient and value at zero."""
    return jnp.sqrt(sum(jnp.square(leaf.reshape(leaf.shape[0], -1)).sum(-1) for leaf in jax.tree.leaves(tree)) + EPS)


def scale_B(tree: PyTree, by_B: Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf * by_B.reshape(-1, *[1] * (leaf.ndim - 1)), tree)


def clip(delta: PyTree, largest: float) -> PyTree:
    """Per-sample norm at most `largest` (0: as it is). For what is injected, never for the targets."""
    if not largest:
        return delta
    return scale_B(delta, jnp.minimum(1.0, largest / norm_B(delta)))


def regression(prediction: PyTree, target: PyTree, counts_B: Array) -> Array:
    """L_SG: squared error summed per sample, averaged over the batch; samples that do not count give 0."""
    gap = jax.tree.map(lambda p, t: p - jax.lax.stop_gradient(t), prediction, target)
    return (counts_B * (jnp.square(norm_B(gap)) - EPS)).mean()


def health(prediction: PyTree, target: PyTree, counts_B: Array) -> dict[str, Mean]:
    """How good predictions are, over the samples that count.

    sg_cosine   cosine of prediction and target (0 where either is zero)
    sg_ratio    mean |prediction| / mean |target|
    sg_r2       1 - |target - prediction|^2 / |target|^2: 0 for a model that says nothing, below 0 for one that harms
    """
    square = lambda t: jnp.maximum(jnp.square(norm_B(t)) - EPS, 0.0)  # rounding must not send it below 0
    p_B, t_B = square(prediction) * counts_B, square(target) * counts_B
    gap_B = square(jax.tree.map(jnp.subtract, prediction, target)) * counts_B
    dot_B = sum(jax.tree.leaves(jax.tree.map(
        lambda p, t: (p * t).reshape(p.shape[0], -1).sum(-1), prediction, target))) * counts_B
    cosine_B = dot_B / (jnp.sqrt(p_B * t_B) + EPS)
    return {"sg_cosine": Mean.of(cosine_B, counts_B), "sg_r2": Mean((t_B - gap_B).sum(), t_B.sum()),
            "sg_ratio": Mean(jnp.sqrt(p_B).sum(), jnp.sqrt(t_B).sum())}


def boundary_gradients(segment: Callable, params: PyTree, state: PyTree, num: int) -> list[PyTree]:
    """The true gradients d(sum of all later losses)/ds_k at boundaries 0..num, by full backpropagation.

    segment(params, state, k) -> (loss_B, state, aux). What a perfect feedback model would say; the last is zero.
    """
    states = [state]
    for k in range(num):
        states.append(segment(params, states[-1], k)[1])
    deltas = [jax.tree.map(jnp.zeros_like, states[-1])]
    for k in reversed(range(num)):
        def total(s, k=k, future=deltas[0]):
            loss_B, after, _ = segment(params, s, k)
            return loss_B.sum() + inner(future, after)

        deltas.insert(0, jax.grad(total)(states[k]))
    return deltas


class Trace(NamedTuple):
    """BP(lambda)'s eligibility trace of a linear feedback model: e[b, i, a, c] = sum over past boundaries k of
    (gamma lambda)^(j-k) (ds_j/ds_k)[i, a] input_k[c]. Size |s|^2 (|s| + context + 1) per sample: small states only."""

    e_BIAC: Array

    def advance(self, jacobian_BIJ: Array, input_BC: Array, decay: float, fresh: Array) -> Trace:
        """Through one segment, then the new boundary's own term. `fresh`: there is no past boundary."""
        carried = decay * jnp.einsum("bij,bjac->biac", jacobian_BIJ, self.e_BIAC)
        carried = jnp.where(fresh, 0.0, carried)
        own = jnp.eye(jacobian_BIJ.shape[1])[None, :, :, None] * input_BC[:, None, None]
        return Trace(carried + own)

    def gradient(self, error_BI: Array) -> Array:
        """-(d input) summed over samples: the regression's gradient on the (A, C) matrix, 2 |.|^2 convention."""
        return -2 * jnp.einsum("bi,biac->ac", error_BI, self.e_BIAC)


def jacobian(function: Callable, x_BI: Array) -> Array:
    """d function(x)_bi / d x_bj for a function that treats samples apart: (B, I, J), one tangent per j."""
    basis_JI = jnp.eye(x_BI.shape[-1])
    push = lambda v_I: jax.jvp(function, (x_BI,), (jnp.broadcast_to(v_I, x_BI.shape),))[1]
    return jnp.moveaxis(jax.vmap(push)(basis_JI), 0, -1)


CONTEXTS = ("none", "label", "error", "surprise")


def context_size(kind: str, time_remaining: bool, outputs: int) -> int:
    return {"none": 0, "label": outputs, "error": outputs, "surprise": 1}[kind] + time_remaining


def context(kind: str, time_remaining: bool, label_sum: Callable, mask_BT: Array, boundary: Array,
            error_TBV: Array, loss_TB: Array, mask_TB: Array) -> Array:
    """What the feedback model sees at a boundary besides the state: (B, C). Training-time information.

    label     the mean label (one-hot, or bits) of the positions that still count: privileged, from the future
    error     the mean error of the outputs in the segment just read    surprise   the mean loss there
    time_remaining   the fraction of the episode's counted positions' span that is still to come

    boundary is the first position not read yet; the mask is of the whole episode, errors and losses of the segment
    (time-major); label_sum(weight_BT) -> (B, V) is the weighted sum of the episode's labels.
    """
    ahead_BT = mask_BT * (jnp.arange(mask_BT.shape[1]) >= boundary)
    inside_B = jnp.maximum(mask_TB.sum(0), 1.0)[:, None]
    out = []
    if kind == "label":
        out.append(label_sum(ahead_BT) / jnp.maximum(ahead_BT.sum(1), 1.0)[:, None])
    if kind == "error":
        out.append((error_TBV * mask_TB[..., None]).sum(0) / inside_B)
    if kind == "surprise":
        out.append((loss_TB * mask_TB).sum(0)[:, None] / inside_B)
    if time_remaining:
        last_B = jnp.max(mask_BT * jnp.arange(1, mask_BT.shape[1] + 1), axis=1)
        out.append((jnp.maximum(last_B - boundary, 0.0) / mask_BT.shape[1])[:, None])
    return jnp.concatenate(out, -1) if out else jnp.zeros((mask_BT.shape[0], 0))
