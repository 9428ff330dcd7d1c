"""Ways to say what the gradient is. A scalar loss is the simplest of them."""

from __future__ import annotations

from collections.abc import Callable

import jax


def grads_from_loss(loss: Callable) -> Callable:
    """From `loss(params, carry, batch, key) -> (scalar, (carry, means))` to a learner's `grads`."""

    def grads(params, carry, batch, key):
        g, (carry, means) = jax.grad(loss, has_aux=True)(params, carry, batch, key)
        return g, carry, means

    return grads
