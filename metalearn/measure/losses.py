"""Losses and scores as mergeable means, so that they add up over devices, steps and shards.

All of them take f32 logits whatever the network computes in.
"""

import jax
import jax.numpy as jnp

from metalearn.types import Array, Mean


def cross_entropy(logits_V: Array, y: Array) -> Array:
    """Cross-entropy in nats at each position: logits (..., V), labels (...) -> (...)."""
    log_p = jax.nn.log_softmax(jnp.asarray(logits_V, jnp.float32))
    return -jnp.take_along_axis(log_p, y[..., None], axis=-1)[..., 0]


def correct(logits_V: Array, y: Array) -> Array:
    """1.0 where the largest logit is the label; ties go to the first class."""
    return jnp.asarray(jnp.argmax(logits_V, -1) == y, jnp.float32)


def classification(logits_BTV: Array, y_BT: Array, mask_BT: Array) -> tuple[Array, dict[str, Mean]]:
    """(loss, means): the mean cross-entropy over counted positions, and loss, accuracy, accuracy at the last one."""
    loss = Mean.of(cross_entropy(logits_BTV, y_BT), mask_BT)
    hit_BT = correct(logits_BTV, y_BT)
    means = {"loss": loss, "accuracy": Mean.of(hit_BT, mask_BT), "last": Mean.of(hit_BT[:, -1], mask_BT[:, -1])}
    return loss.compute(), means


def position_loss(outputs: Array, y: Array, targets: str) -> Array:
    """Loss at each position by the kind of target, leading axes kept.

    classes  cross-entropy in nats: outputs (..., V), y (...) int
    bits     binary cross-entropy in nats, mean over the bits: outputs and y (..., Y)
    real     squared error, mean over the targets: outputs and y (..., Y)
    """
    outputs = jnp.asarray(outputs, jnp.float32)
    if targets == "classes":
        return cross_entropy(outputs, y)
    if targets == "bits":
        return (jax.nn.softplus(outputs) - outputs * y).mean(-1)
    return jnp.square(outputs - y).mean(-1)


def position_correct(outputs: Array, y: Array, targets: str) -> Array:
    """1.0 where the answer is right (classes), the fraction of right bits (bits), minus the squared error (real)."""
    if targets == "classes":
        return correct(outputs, y)
    if targets == "bits":
        return jnp.asarray((outputs > 0) == (y > 0.5), jnp.float32).mean(-1)
    return -position_loss(outputs, y, targets)
