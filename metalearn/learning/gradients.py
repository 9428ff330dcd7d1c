"""Ways to say what the gradient is. A scalar loss is the simplest of them.

The memory dial of second-order learning, all in `inner_loop`: every step keeps its activations (`remat` off), every
step keeps its parameters and computes its activations again (`remat` on), only the last steps are differentiated
(`exact_steps`), or none (0: first order).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metalearn.types import PyTree


def grads_from_loss(loss: Callable) -> Callable:
    """From `loss(params, carry, batch, key) -> (scalar, (carry, means))` to a learner's `grads`."""

    def grads(params, carry, batch, key):
        g, (carry, means) = jax.grad(loss, has_aux=True)(params, carry, batch, key)
        return g, carry, means

    return grads


def inner_loop(loss: Callable, fast: PyTree, lr: PyTree, steps: int, exact_steps: int, remat: bool,
               keep: bool = False) -> PyTree:
    """`steps` of gradient descent on `loss(fast)`, itself differentiable.

    lr           one number, or a tree like `fast` with a rate for each entry
    exact_steps  how many of the last steps are differentiated through exactly; in the others the inner gradient
                 counts as a constant, so that what went before still passes on to the result (0: first-order MAML)
    remat        compute a step's activations again in the backward pass instead of keeping them
    keep         return the fast parameters after 0..steps steps, stacked, instead of the last ones
    """
    rates = lr if jax.tree.structure(lr) == jax.tree.structure(fast) else jax.tree.map(lambda _: lr, fast)

    def step(exact: bool, fast: PyTree):
        grads = jax.grad(loss)(fast)
        if not exact:
            grads = jax.lax.stop_gradient(grads)
        return jax.tree.map(lambda p, r, g: p - r * g, fast, rates, grads)

    exact_steps, path = min(exact_steps, steps), [jax.tree.map(lambda p: p[None], fast)]
    for exact, num in ((False, steps - exact_steps), (True, exact_steps)):
        one = lambda fast, exact=exact: step(exact, fast)
        one = jax.checkpoint(one) if exact and remat else one
        if num == 1:  # a scan of one step only hides it from the compiler
            fast = one(fast)
            seen = jax.tree.map(lambda p: p[None], fast)
        else:
            fast, seen = jax.lax.scan(lambda f, _, one=one: (lambda new: (new, new if keep else None))(one(f)), fast,
                                      None, length=num)
        path.append(seen)
    return jax.tree.map(lambda *p: jnp.concatenate(p), *path) if keep else fast


def by_chunk(of_chunk: Callable, tasks: PyTree, chunk: int) -> Any:
    """The mean of `of_chunk(tasks[i : i + chunk])`, a tree of arrays, one chunk after another.

    Sums over chunks keep one chunk's activations alive at a time. 0 takes all tasks at once.
    """
    num = jax.tree.leaves(tasks)[0].shape[0]
    if chunk in (0, num):
        return of_chunk(tasks)
    parts = jax.tree.map(lambda a: a.reshape(num // chunk, chunk, *a.shape[1:]), tasks)
    shapes = jax.eval_shape(of_chunk, jax.tree.map(lambda a: a[0], parts))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(lambda sum, part: (jax.tree.map(jnp.add, sum, of_chunk(part)), None), zero, parts)
    return jax.tree.map(lambda a: a * (chunk / num), total)
