"""Implicit MAML (Rajeswaran et al. 2019): the gradient at the inner loop's end, whatever path led there.

At the minimum of the support loss plus (penalty / 2) |fast - start|^2 the meta-gradient is (1 + H / penalty)^-1 g, with
H the Hessian of the support loss and g the query gradient; `cg_steps` of conjugate gradients solve it. Both premises
are reported, means over tasks: `inner_residual`, the gradient's norm at the inner loop's end by that at its start (0 at
the minimum); `curvature`, the least that conjugate gradients met of 1 + H / penalty (below 0 the solution means
nothing: raise `penalty` or `damping`); `cg_residual`.
"""

from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from metalearn.learning import adaptable, support_query
from metalearn.learning.gradients import by_chunk, inner_loop
from metalearn.types import Array, Episodes, Learner, Mean, PyTree
from metalearn.validate import nonnegative, positive


def conjugate_gradients(matrix: Callable[[PyTree], PyTree], b: PyTree, steps: int) -> tuple[PyTree, Array, Array]:
    """(x with matrix(x) = b after `steps`, |b - matrix(x)| / |b|, least curvature p'Ap / p'p of a direction taken)."""
    b_N, tree = jax.flatten_util.ravel_pytree(b)
    safe = lambda a, b: jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))  # once it has converged

    def step(at, _):
        x_N, r_N, p_N, least = at
        Ap_N = jax.flatten_util.ravel_pytree(matrix(tree(p_N)))[0]
        bend, size = p_N @ Ap_N, p_N @ p_N
        k, old = safe(r_N @ r_N, bend), r_N @ r_N
        x_N, r_N = x_N + k * p_N, r_N - k * Ap_N
        least = jnp.minimum(least, jnp.where(size == 0, least, safe(bend, size)))
        return (x_N, r_N, r_N + safe(r_N @ r_N, old) * p_N, least), None

    at = (jnp.zeros_like(b_N), b_N, b_N, jnp.asarray(jnp.inf, b_N.dtype))
    (x_N, r_N, _, least), _ = jax.lax.scan(step, at, length=steps)
    return tree(x_N), safe(jnp.linalg.norm(r_N), jnp.linalg.norm(b_N)), least


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

    def penalised(fast, params, x_SX, y_S):
        far = jax.tree.map(lambda f, p: jnp.vdot(f - p, f - p), fast, params)
        return on_support(fast, x_SX, y_S) + 0.5 * penalty * jax.tree.reduce(jnp.add, far)

    def adapt_to(params, x_SX, y_S, steps, keep=False):
        return inner_loop(lambda fast: penalised(fast, params, x_SX, y_S), params, inner_lr, steps, 0, False, keep)

    def implicit(params, x_SX, y_S, x_QX, y_Q):
        """(meta-gradient, query outputs, query statistics, how well its premises hold) of one task."""
        fast = adapt_to(params, x_SX, y_S, inner_steps)
        norm = lambda at: optax.global_norm(jax.grad(penalised)(at, params, x_SX, y_S))

        def on_query(fast):
            out_QV, stats = net.answer(*net.split(fast), x_SX, x_QX)
            return support_query.loss(spec, out_QV, y_Q).mean(), (out_QV, stats)

        grads, (out_QV, stats) = jax.grad(on_query, has_aux=True)(fast)
        hessian = lambda v: jax.jvp(lambda p: jax.grad(on_support)(p, x_SX, y_S), (fast,), (v,))[1]
        matrix = lambda v: jax.tree.map(lambda a, h: (1 + damping) * a + h / penalty, v, hessian(v))
        solved, cg_residual, curvature = conjugate_gradients(matrix, grads, cg_steps)
        premises = {"inner_residual": norm(fast) / norm(params), "cg_residual": cg_residual, "curvature": curvature}
        return solved, out_QV, stats, premises

    def grads(params, carry, batch: Episodes, key):
        def of_chunk(tasks):
            grads, out_BQV, stats, premises = jax.vmap(lambda *task: implicit(params, *task))(*tasks)
            mean = lambda tree: jax.tree.map(lambda a: a.mean(0), tree)
            means = support_query.means(spec, out_BQV, tasks[3]) | {k: Mean.of(v) for k, v in premises.items()}
            return mean(grads), (means, mean(stats))

        grads, (means, stats) = by_chunk(of_chunk, support_query.parts(batch), task_chunk)
        return grads, net.moved(carry, stats), means

    predict, path = support_query.by_steps(
        spec,
        lambda params, carry, x_SX, y_S, task, steps, keep: adapt_to(params, x_SX, y_S, steps, keep),
        lambda params, carry, fast, x_SX, x_QX: net.answer(*net.split(fast), x_SX, x_QX, carry)[0],
        eval_steps)
    return Learner(init, grads, predict, lambda length: 0, path=path)
