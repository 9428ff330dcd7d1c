"""Synthetic gradients at segment boundaries (DNI, arXiv 1608.05343): the gradient rule, its targets, its health.

s_k is the whole recurrent state, memory included, at boundary k of segments of T steps, L_k the loss inside segment k,
G the feedback model:

  J_k(theta, s_k) = L_k(theta, s_k) + gamma <stop[G(s_{k+1})], s_{k+1}(theta, s_k)>     last segment: no second term
  g_theta = dJ_k/dtheta           delta*_k = dJ_k/ds_k           L_SG = |G(stop[s_k]) - delta*_k|^2

Losses are sums over samples, so that messages and targets do not know the batch size; the caller divides. BP(lambda)
(Pemberton & Costa, TMLR 2024) replaces the one-step target by eligibility traces.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalearn.types import Array, Mean, PyTree

EPS = 1e-12


class Segment(NamedTuple):
    """What one segment gives.

    grads   dJ/dparams, summed over samples      target  dJ/dstate, per sample
    state   the next boundary's state             delta   what was injected there, per sample; None for nothing
    aux     the segment function's own extras
    """

    grads: PyTree
    target: PyTree
    state: PyTree
    delta: PyTree
    aux: Any


def grads_by_synthetic(segment: Callable, params: PyTree, state: PyTree, feedback: Callable | None,
                       auxiliary: Callable | None = None) -> Segment:
    """The gradient of one segment with the future's gradient injected at its end.

    segment(params, state) -> (loss_B, state, aux)
    feedback(state, aux) -> delta          what to inject, a tree like the state; None injects nothing (truncated BPTT)
    auxiliary(params, aux, delta) -> loss_B        more loss, once what is injected is known (DNI+Aux); it moves the
                                                   parameters and is no part of the target, which is of the task alone
    """

    def objective(params, state):
        loss_B, after, aux = segment(params, state)
        after_stopped = jax.lax.stop_gradient(after)
        delta = jax.lax.stop_gradient(feedback(after_stopped, jax.lax.stop_gradient(aux))) if feedback else None
        injected = inner(delta, after) if feedback else 0.0
        more = auxiliary(params, aux, delta).sum() if auxiliary else jnp.zeros(())
        return (loss_B.sum() + injected, more), (after_stopped, delta, aux)

    parts, pull, (after, delta, aux) = jax.vjp(objective, params, state, has_aux=True)
    loss, more = jax.tree.map(jnp.ones_like, parts)
    grads, target = pull((loss, more))
    if auxiliary:
        _, target = pull((loss, jnp.zeros_like(more)))
    return Segment(grads, target, after, delta, aux)


def inner(a: PyTree, b: PyTree) -> Array:
    """<a, b> over all leaves."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))


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

    def total(nudges):
        at, loss = state, 0.0
        for k, nudge in enumerate(nudges[:-1]):
            loss_B, at, _ = segment(params, jax.tree.map(jnp.add, at, nudge), k)
            loss += loss_B.sum()
        return loss

    return jax.grad(total)([jax.tree.map(jnp.zeros_like, state)] * (num + 1))


# BP(lambda)'s eligibility trace of a linear feedback model: e[b, i, a, c] = sum over past boundaries k of
# (gamma lambda)^(j-k) (ds_j/ds_k)[i, a] input_k[c]. Size |s|^2 (|s| + context + 1) per sample: small states only


def advance(e_BIAC: Array, jacobian_BIJ: Array, input_BC: Array, decay: float, fresh: Array) -> Array:
    """The trace through one segment, with the new boundary's own term. `fresh`: there is no past boundary."""
    carried = jnp.where(fresh, 0.0, decay * jnp.einsum("bij,bjac->biac", jacobian_BIJ, e_BIAC))
    return carried + jnp.eye(jacobian_BIJ.shape[1])[None, :, :, None] * input_BC[:, None, None]


def traced_gradient(e_BIAC: Array, error_BI: Array) -> Array:
    """-(d input) summed over samples: the regression's gradient on the (A, C) matrix, 2 |.|^2 convention."""
    return -2 * jnp.einsum("bi,biac->ac", error_BI, e_BIAC)


def jacobian(function: Callable, x_BI: Array) -> Array:
    """d function(x)_bi / d x_bj for a function that treats samples apart: (B, I, J), one tangent per j."""
    basis_JI = jnp.eye(x_BI.shape[-1])
    push = lambda v_I: jax.jvp(function, (x_BI,), (jnp.broadcast_to(v_I, x_BI.shape),))[1]
    return jnp.moveaxis(jax.vmap(push)(basis_JI), 0, -1)
