"""Reptile (Nichol et al. 2018): train on a task by plain descent, then step towards where that led.

The gradient handed to the outer optimiser is (start - end) / (inner_lr * inner_steps), the mean inner gradient along
the way, so that outer learning rates mean what they mean elsewhere. Training learns from the whole episode, support
and queries, in random minibatches; prediction learns from the support alone. The inner rule is Adam without momentum
(b1 = 0), as in the paper; inputs of a minibatch are normalised together.
"""

import jax
import jax.numpy as jnp
import optax

from metalearn.learning import adaptable, support_query
from metalearn.types import Episodes, Learner
from metalearn.validate import one_of, positive, require


def make(spec, *, backbone: dict, inner_rule: str, inner_lr: float, inner_steps: int, inner_batch: int,
         eval_steps: int) -> Learner:
    """The learner.

    inner_rule   adam (b1 = 0) | sgd, at rate `inner_lr`
    inner_steps  steps on minibatches of `inner_batch` examples in training
    eval_steps   steps in prediction, on minibatches no larger than the support
    """
    support_query.need(spec, fixed_ways=True)
    one_of(("adam", "sgd"), inner_rule=inner_rule)
    positive(inner_lr=inner_lr, inner_steps=inner_steps, inner_batch=inner_batch, eval_steps=eval_steps)
    length = spec.length
    require(inner_batch <= length, "inner_batch", inner_batch, f"must be at most {length}, the examples of an episode")
    net = adaptable.make(backbone, spec, spec.outputs, "all", 0)
    rule = optax.adam(inner_lr, b1=0.0) if inner_rule == "adam" else optax.sgd(inner_lr)

    def init(key, batch: Episodes):
        return net.init(key, batch.x_BTX[0])

    def descend(params, x_NX, y_N, key, steps, keep=False):
        """(params after `steps`, or with `keep` after 0..steps; mean losses and statistics along the way)."""
        size = min(inner_batch, y_N.shape[0])

        def loss(params, x, y):
            out, stats = net.answer(*net.split(params), x, x)
            return support_query.loss(spec, out, y).mean(), (out, stats)

        def step(state, key):
            params, memory = state
            rows = jax.random.permutation(key, y_N.shape[0])[:size]
            grads, (out, stats) = jax.grad(loss, has_aux=True)(params, x_NX[rows], y_N[rows])
            updates, memory = rule.update(grads, memory, params)
            params = optax.apply_updates(params, updates)
            return (params, memory), (params if keep else None, support_query.means(spec, out, y_N[rows]), stats)

        (end, _), (seen, means, stats) = jax.lax.scan(step, (params, rule.init(params)), jax.random.split(key, steps))
        if keep:
            end = jax.tree.map(lambda p, q: jnp.concatenate([p[None], q]), params, seen)
        return end, means, stats

    def grads(params, carry, batch: Episodes, key):
        keys = jax.random.split(key, batch.y_BT.shape[0])
        one = lambda x, y, key: descend(params, x, y, key, inner_steps)
        ends, means, stats = jax.vmap(one)(batch.x_BTX, batch.y_BT, keys)
        grads = jax.tree.map(lambda p, q: (p - q.mean(0)) / (inner_lr * inner_steps), params, ends)
        return grads, net.moved(carry, jax.tree.map(lambda s: s.mean((0, 1)), stats)), jax.tree.map(jnp.sum, means)

    def adapt_to(params, carry, x_SX, y_S, task, steps, keep):
        # a prediction is a function of the episode alone: its minibatches come from a key of the task's own
        key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), task)
        return descend(params, x_SX, y_S, key, steps, keep)[0]

    answer = lambda params, carry, fast, x_SX, x_QX: net.answer(*net.split(fast), x_SX, x_QX, carry)[0]
    predict, path = support_query.by_steps(spec, adapt_to, answer, eval_steps)
    return Learner(init, grads, predict, lambda length: 0, path=path)
