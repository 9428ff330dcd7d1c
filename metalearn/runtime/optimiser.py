"""The outer optimiser: clip -> rule -> weight decay -> learning-rate schedule, and a guard against non-finite updates.

`make(**config.optim, total_steps=...)` makes it. Sign momentum (the sign of a moving average of the
gradient) and a small Adam epsilon are GPICL's two ways to shorten the plateau.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalearn import validate
from metalearn.types import Array, PyTree, leaf_name

RULES = ("adam", "sign_momentum", "lion", "rmsprop", "sgd")


def make(*, name: str, lr: float, warmup_steps: int, decay: str, clip: float, weight_decay: float, b1: float, b2: float,
         eps: float, freeze: str, total_steps: int, groups: dict | None = None) -> optax.GradientTransformation:
    """Builds the optimiser.

    name          adam | sign_momentum | lion | rmsprop | sgd (with momentum b1)
    lr            peak learning rate, after `warmup_steps` of linear warm-up; may be traced, as a replica's own is
    decay         constant | cosine (to zero at total_steps)
    clip          largest global gradient norm; 0 switches it off
    weight_decay  decoupled, applied with the learning rate to arrays of rank 2 and above
    b1, b2, eps   moment decays and Adam's (or RMSProp's) epsilon
    freeze        regular expression on parameter paths ('decoder/.*'); matching leaves get no update; '' is none
    groups        {name: {"match": path regex, "lr": ..., "clip": ...}}: leaves with a learning rate and a clipping norm
                  of their own, norms being taken within a group (a feedback model beside the network that it serves)
    """
    validate.one_of(RULES, name=name)
    validate.one_of(("constant", "cosine"), decay=decay)
    validate.positive(**{} if isinstance(lr, jax.Array) else {"lr": lr}, total_steps=total_steps)
    validate.nonnegative(warmup_steps=warmup_steps, clip=clip, weight_decay=weight_decay, eps=eps)
    for field, value in dict(b1=b1, b2=b2).items():
        validate.require(0 <= value < 1, field, value, "must lie in [0, 1)")
    validate.require(warmup_steps <= total_steps, "warmup_steps", warmup_steps,
                     f"must be at most train.steps={total_steps}")
    validate.regex(freeze=freeze)
    groups = dict(groups or {})
    for group, fields in groups.items():
        with validate.within(f"groups.{group}"):
            validate.require(set(fields) == {"match", "lr", "clip"}, "(fields)", ", ".join(fields),
                             "must be match, lr and clip")
            validate.nonnegative(lr=fields["lr"], clip=fields["clip"])
            validate.regex(match=fields["match"])

    def chain(lr, clip):
        rule = {
            "adam": lambda: optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
            "sign_momentum": lambda: optax.chain(optax.ema(b1, debias=False), optax.scale_by_sign()),
            "lion": lambda: optax.scale_by_lion(b1=b1, b2=b2),
            "rmsprop": lambda: optax.chain(optax.scale_by_rms(decay=b2, eps=eps), optax.trace(b1)),
            "sgd": lambda: optax.trace(b1),
        }[name]()
        steps = [optax.clip_by_global_norm(clip)] if clip else []
        steps.append(rule)
        if weight_decay:
            matrices = lambda params: jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
            steps.append(optax.add_decayed_weights(weight_decay, mask=matrices))
        steps.append(optax.scale_by_learning_rate(schedule(lr, warmup_steps, decay, total_steps)))
        return optax.chain(*steps)

    tx = chain(lr, clip)
    patterns = ({"freeze": freeze} if freeze else {}) | {f"group {g}": fields["match"] for g, fields in groups.items()}
    if patterns:
        parts: dict[Any, Any] = {f"group {g}": chain(fields["lr"], fields["clip"]) for g, fields in groups.items()}
        parts |= {"train": tx, "freeze": optax.set_to_zero()}
        tx = optax.multi_transform(parts, lambda p: label(p, **patterns))
    return skip_nonfinite(tx)


def schedule(lr: float, warmup_steps: int, decay: str, total_steps: int) -> optax.Schedule:
    """The learning rate by step; see `make`."""
    warm = optax.linear_schedule(lr / max(warmup_steps, 1), lr, max(warmup_steps - 1, 1))
    rest = max(total_steps - warmup_steps, 1)
    after = optax.constant_schedule(lr) if decay == "constant" else optax.cosine_decay_schedule(lr, rest)
    return optax.join_schedules([warm, after], [warmup_steps]) if warmup_steps else after


def label(params: PyTree, **patterns: str) -> PyTree:
    """The name of the first pattern that a leaf's path ('block_0/attention/query/kernel') matches, else 'train'."""

    def of(path, _):
        return next((name for name, pattern in patterns.items() if re.search(pattern, leaf_name(path))), "train")

    return jax.tree_util.tree_map_with_path(of, params)


class SkipState(NamedTuple):
    """skipped: updates refused so far; streak: refused in a row (0 after a good one)."""

    inner: PyTree
    skipped: Array
    streak: Array


def skip_nonfinite(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Passes `tx` through unless a gradient or an update holds a NaN or infinity: then nothing moves and it is counted.

    Unlike optax.apply_if_finite it never lets a bad update through; the train loop stops on a long streak instead.
    """

    def init(params):
        return SkipState(tx.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(grads, state, params=None):
        updates, inner = tx.update(grads, state.inner, params)
        ok = jnp.isfinite(optax.global_norm(grads)) & jnp.isfinite(optax.global_norm(updates))
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)
        updates = jax.tree.map(lambda u: jnp.where(ok, u, jnp.zeros_like(u)), updates)
        bad = 1 - ok.astype(jnp.int32)
        return updates, SkipState(keep(inner, state.inner), state.skipped + bad, (state.streak + 1) * bad)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]: optax names no arguments
