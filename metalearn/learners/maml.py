"""Model-agnostic meta-learning and its near relatives (Finn et al. 2017): start where few gradient steps suffice.

  order=second      differentiate through every inner step; order=first: not at all; order=truncated: the last ones
  adapt=head        ANIL (Raghu et al. 2020); adapt=context: CAVIA (Zintgraf et al. 2019)
  learn_lr=true     Meta-SGD (Li et al. 2017): a learnt rate for each adapted parameter
  inner_steps=0     no meta-learning: trained on all tasks as on one, fine-tuned to each (the paper's baseline)

Statistics (`backbone.norm`): the support is always normalised by its own; queries by their own (batch), by the
support's (episode), or at prediction by moving averages of the adapted networks' query statistics (running).
"""

import jax
import jax.numpy as jnp

from metalearn.learning import adaptable, support_query
from metalearn.learning.gradients import by_chunk, inner_loop
from metalearn.types import Episodes, Learner
from metalearn.validate import nonnegative, one_of, positive, require


def make(spec, *, backbone: dict, adapt: str, context: int, inner_steps: int, eval_steps: int, inner_lr: float,
         learn_lr: bool, order: str, exact_steps: int, remat: bool, task_chunk: int) -> Learner:
    """The learner.

    backbone     {"name": conv4 | resnet12 | mlp, ...}, see `nn.backbone`
    adapt        all | head | context, with `context` the length of the context vector (0 for the others)
    inner_steps  gradient steps on the support in training (0: joint training); eval_steps: in prediction
    inner_lr     their rate (with learn_lr: where the learnt rates start)
    order        second | first | truncated (differentiate the last `exact_steps` only; 0 for the other orders)
    remat        recompute the inner steps' activations in the backward pass
    task_chunk   tasks worked on at a time (0: all); the batch must be a multiple of it
    """
    support_query.need(spec, fixed_ways=True)
    one_of(("second", "first", "truncated"), order=order)
    positive(inner_lr=inner_lr)
    nonnegative(inner_steps=inner_steps, eval_steps=eval_steps, task_chunk=task_chunk)
    require((exact_steps > 0) == (order == "truncated"), "exact_steps", exact_steps,
            "must be above 0 with order=truncated, else 0")
    exact = {"second": inner_steps, "first": 0, "truncated": exact_steps}[order]
    net = adaptable.make(backbone, spec, spec.outputs, adapt, context)

    def init(key, batch: Episodes):
        params, carry = net.init(key, support_query.parts(batch)[0][0])
        if learn_lr:
            params["lr"] = jax.tree.map(lambda p: jnp.full_like(p, inner_lr), net.split(params)[0])
        return params, carry

    def adapt_to(params, x_SX, y_S, steps, exact, keep=False):
        fast, slow = net.split(params)
        on_support = lambda fast: support_query.loss(spec, net.apply(fast, slow, x_SX), y_S).mean()
        return inner_loop(on_support, fast, params["lr"] if learn_lr else inner_lr, steps, exact, remat, keep)

    def loss(params, tasks):
        def one(x_SX, y_S, x_QX, y_Q):
            return net.answer(adapt_to(params, x_SX, y_S, inner_steps, exact), net.split(params)[1], x_SX, x_QX)

        out_BQV, stats = jax.vmap(one)(*tasks)
        means = support_query.means(spec, out_BQV, tasks[3])
        return means["loss"].compute(), (means, jax.tree.map(lambda s: s.mean(0), stats))

    def grads(params, carry, batch: Episodes, key):
        of_chunk = lambda tasks: jax.grad(loss, has_aux=True)(params, tasks)
        grads, (means, stats) = by_chunk(of_chunk, support_query.parts(batch), task_chunk)
        return grads, net.moved(carry, stats), means

    predict, path = support_query.by_steps(
        spec,
        lambda params, carry, x_SX, y_S, task, steps, keep: adapt_to(params, x_SX, y_S, steps, 0, keep),
        lambda params, carry, fast, x_SX, x_QX: net.answer(fast, net.split(params)[1], x_SX, x_QX, carry)[0],
        eval_steps)
    return Learner(init, grads, predict, lambda length: 0, path=path)
