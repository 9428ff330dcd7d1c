"""The support/query view of `Episodes`, which every few-shot learner and evaluator shares.

A batch itself says how many of its positions, the first ones, are support (`Episodes.support`) and how many classes it
has (`Episodes.ways`): learners that work on any numbers of them are never told the training task's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metalearn.learning.gradients import grads_from_loss
from metalearn.measure import losses
from metalearn.nn import taps
from metalearn.types import Array, Episodes, EpisodeSpec, Learner, Mean
from metalearn.validate import require


def need(spec: EpisodeSpec, *, classification: bool = False, fixed_ways: bool = False) -> None:
    """ConfigError unless the task gives support/query pairs (and labels; and as many ways in training as after)."""
    require(spec.shots > 0, "name", "a task without support and queries",
            "this needs a task of support/query episodes (tasks.fewshot with form=support_query, sinusoid, linear)")
    require(not classification or spec.classes, "name", "a regression task", "this needs a task with labels")
    if fixed_ways and spec.classes:
        require(spec.train_outputs == spec.outputs, "name", f"train_ways={spec.train_outputs}",
                f"this learner has one output per label: task.train_ways must equal task.ways={spec.outputs}")


def parts(batch: Episodes) -> tuple[Array, Array, Array, Array]:
    """(x_support, y_support, x_query, y_query), each with leading axes (B, positions)."""
    S = batch.support
    require(0 < S < batch.mask_BT.shape[1], "support", S,
            f"must lie between 1 and {batch.mask_BT.shape[1] - 1}: an episode has support and queries")
    return batch.x_BTX[:, :S], batch.y_BT[:, :S], batch.x_BTX[:, S:], batch.y_BT[:, S:]


def loss(spec: EpisodeSpec, outputs: Array, y: Array) -> Array:
    """The loss at each position: cross-entropy in nats for labels, squared error (mean over outputs) for targets."""
    return losses.position_loss(outputs, y, spec.targets)


def means(spec: EpisodeSpec, outputs: Array, y: Array) -> dict[str, Mean]:
    """What learners report of their queries: loss, and accuracy where there are labels."""
    out = {"loss": Mean.of(loss(spec, outputs, y))}
    return out | {"accuracy": Mean.of(losses.correct(outputs, y))} if spec.classes else out


def answers(batch: Episodes, outputs_BQV: Array) -> Array:
    """Query outputs at their places in the episode, (B, T, V); zeros at the support, where nothing is asked."""
    S = batch.mask_BT.shape[1] - outputs_BQV.shape[1]
    return jnp.pad(outputs_BQV, ((0, 0), (S, 0), (0, 0)))


def in_one_pass(spec: EpisodeSpec, init: Callable, outputs: Callable, state_size: Callable, *,
                any_ways: bool) -> Learner:
    """The learner that answers without adapting any weight: `outputs(params, carry, batch, train) -> (out_BQV, carry)`
    of the queries alone."""

    def loss(params, carry, batch: Episodes, key):
        out_BQV, carry = outputs(params, carry, batch, True)
        found = means(spec, out_BQV, parts(batch)[3])
        return found["loss"].compute(), (carry, found)

    def predict(params, carry, batch: Episodes):
        return answers(batch, outputs(params, carry, batch, False)[0])

    return Learner(init, grads_from_loss(loss), predict, state_size, any_ways=any_ways)


def by_steps(spec: EpisodeSpec, adapt: Callable, answer: Callable, eval_steps: int) -> tuple[Callable, Callable]:
    """(predict, path) of a learner that adapts to each task by steps; see `types.Learner`.

    adapt(params, carry, x_SX, y_S, task, steps, keep) -> fast      after `steps`; with `keep` after 0..steps, stacked
    answer(params, carry, fast, x_SX, x_QX) -> out_QV
    """

    def each(batch: Episodes, one: Callable) -> Array:
        x_BSX, y_BS, x_BQX, _ = parts(batch)
        return taps.vmap(one)(x_BSX, y_BS, x_BQX, batch.task_B)

    def predict(params, carry, batch: Episodes):
        def one(x_SX, y_S, x_QX, task):
            return answer(params, carry, adapt(params, carry, x_SX, y_S, task, eval_steps, False), x_SX, x_QX)

        return answers(batch, each(batch, one))

    def path(params, carry, batch: Episodes, steps: int):
        def one(x_SX, y_S, x_QX, task):
            fasts = adapt(params, carry, x_SX, y_S, task, steps, True)
            return jax.lax.map(lambda fast: answer(params, carry, fast, x_SX, x_QX), fasts)

        return jax.vmap(lambda out_BQV: answers(batch, out_BQV), 1)(each(batch, one))

    return predict, path


def nearest_neighbour(spec: EpisodeSpec, batch: Episodes) -> Array:
    """The baseline: each query gets the label (or target) of the nearest support input, in Euclidean distance."""
    x_BSX, y_BS, x_BQX, _ = (a.reshape(*a.shape[:2], -1) for a in parts(batch))
    far_BQS = (x_BSX**2).sum(-1)[:, None] - 2 * jnp.einsum("bqx,bsx->bqs", x_BQX, x_BSX)
    y_BQY = jnp.take_along_axis(y_BS, jnp.argmin(far_BQS, -1)[..., None], 1)
    return y_BQY[..., 0] if spec.classes else y_BQY
