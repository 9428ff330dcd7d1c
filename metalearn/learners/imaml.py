"""Implicit MAML (Rajeswaran et al. 2019): the gradient at the inner loop's end, whatever path led there.

The inner problem is the support loss plus (penalty / 2) |fast - start|^2. At its minimum the meta-gradient is
(1 + H / penalty)^-1 g with H the Hessian of the support loss and g the query gradient; `cg_steps` of conjugate
gradients solve it. Memory does not grow with `inner_steps`; few cg_steps are the truncated form.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn.learning import adaptable, support_query
from metalearn.learning.gradients import by_chunk, inner_loop
from metalearn.types import Episodes, Learner
from metalearn.validate import nonnegative, positive


def make(spec, *, backbone: dict, inner_steps: int, eval_steps: int, inner_lr: float, penalty: float, cg_steps: int,
         damping: float, task_chunk: int) -> Learner:
    """The learner.

    inner_steps, eval_steps, inner_lr   gradient descent on the penalised support loss
    penalty     pull towards the start
    cg_steps    conjugate-gradient steps for the implicit gradient; damping is added to its matrix' diagonal
    task_chunk  tasks worked on at a time (0: all)
    """
    support_query.need(spec, fixed_ways=True)
    positive(inner_steps=inner_steps, eval_steps=eval_steps, inner_lr=inner_lr, penalty=penalty, cg_steps=cg_steps)
    nonnegative(damping=damping, task_chunk=task_chunk)
    net = adaptable.make(backbone, spec, spec.outputs, "all", 0)

    def init(key, batch: Episodes):
        return net.init(key, support_query.parts(batch)[0][0])

    def on_support(params, x_SX, y_S):
        return support_query.loss(spec, net.apply(*net.split(params), x_SX), y_S).mean()

    def adapt_to(params, x_SX, y_S, steps, keep=False):
        def penalised(fast):
            far = jax.tree.map(lambda f, p: jnp.vdot(f - p, f - p), fast, params)
            return on_support(fast, x_SX, y_S) + 0.5 * penalty * jax.tree.reduce(jnp.add, far)

        return inner_loop(penalised, params, inner_lr, steps, 0, False, keep)

    def implicit(params, x_SX, y_S, x_QX, y_Q):
        """(meta-gradient, query outputs, query statistics) of one task."""
        fast = adapt_to(params, x_SX, y_S, inner_steps)

        def on_query(fast):
            out_QV, stats = net.answer(*net.split(fast), x_SX, x_QX)
            return support_query.loss(spec, out_QV, y_Q).mean(), (out_QV, stats)

        grads, (out_QV, stats) = jax.grad(on_query, has_aux=True)(fast)
        hessian = lambda v: jax.jvp(lambda p: jax.grad(on_support)(p, x_SX, y_S), (fast,), (v,))[1]
        matrix = lambda v: jax.tree.map(lambda a, h: (1 + damping) * a + h / penalty, v, hessian(v))
        solved, _ = jax.scipy.sparse.linalg.cg(matrix, grads, maxiter=cg_steps, tol=0.0)
        return solved, out_QV, stats

    def grads(params, carry, batch: Episodes, key):
        def of_chunk(tasks):
            grads, out_BQV, stats = jax.vmap(lambda *task: implicit(params, *task))(*tasks)
            mean = lambda tree: jax.tree.map(lambda a: a.mean(0), tree)
            return mean(grads), (support_query.means(spec, out_BQV, tasks[3]), mean(stats))

        grads, (means, stats) = by_chunk(of_chunk, support_query.parts(batch), task_chunk)
        return grads, net.moved(carry, stats), means

    predict, path = support_query.by_steps(
        spec,
        lambda params, carry, x_SX, y_S, task, steps, keep: adapt_to(params, x_SX, y_S, steps, keep),
        lambda params, carry, fast, x_SX, x_QX: net.answer(*net.split(fast), x_SX, x_QX, carry)[0],
        eval_steps)
    return Learner(init, grads, predict, lambda length: 0, path=path)
