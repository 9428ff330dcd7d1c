"""The records that flow through the house, and the one key to its letters.

Letters (arrays of known rank carry their axes as a suffix, `logits_BTV`):

  B tasks in a batch    T steps of an episode   L tokens          D width            H heads
  K head size           F feed-forward width    V classes         X input features   S observation
  A action              C task code             P prompt steps    M memory slots     W slot width
  N items in a dataset     E evaluation episodes   R replicas (seeds)

Batch-major outside a scan body. Scalars, parameters and opaque trees are bare.

Time convention: at index t `obs_t` is seen, `act_t` taken, `rew_t` and `done_t` result from *that* action;
`rtg_t` is the sum of `rew_k` over k >= t. `done` (terminated) and `cut` (truncated) are two fields.
Masks: 1 = counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any


def record(cls):
    """A frozen dataclass that is also a pytree: every field is a child, named in key paths."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    jax.tree_util.register_dataclass(cls, data_fields=[f.name for f in dataclasses.fields(cls)], meta_fields=[])
    cls.replace = dataclasses.replace
    return cls


def leaf_name(path) -> str:
    """'params/block_0/qkv/kernel' of a key path: what checkpoints store a leaf under and configs match it by."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


@record
class Episodes:
    """B supervised episodes of T positions.

    x_BTX     inputs; images may keep trailing axes, (B, T, height, width, channels)
    y_BT      int32 labels, or float targets (B, T, Y) for regression
    mask_BT   f32; 1 where the position counts in the loss and in the scores
    task_B    int32 task ids
    index_BT  int32 dataset item shown at each position, -1 where there is none; with `y_BT` and `task_B` it
              says exactly what was drawn, so frozen episodes are hashed by it and notebooks draw by it
    """

    x_BTX: Array
    y_BT: Array
    mask_BT: Array
    task_B: Array
    index_BT: Array


@record
class Trajectories:
    """B stretches of T steps of reinforcement learning, in the time convention above; padding is zero everywhere.

    obs_BTS, act_BTA, rew_BT     seen, done (in -1 to 1), got
    next_BTS                     the observation after the step
    rtg_BT                       return-to-go, unscaled and undiscounted (or another wish that a task puts there)
    time_BT                      int32 step number within the episode
    done_BT, cut_BT              terminated, truncated
    mask_BT                      f32; 0 where the stretch leaves the episode
    """

    obs_BTS: Array
    act_BTA: Array
    rew_BT: Array
    next_BTS: Array
    rtg_BT: Array
    time_BT: Array
    done_BT: Array
    cut_BT: Array
    mask_BT: Array


@record
class Prompted:
    """A stretch to act in and another episode of the same task to learn from.

    prompt    all-zero mask where there is none; begins with the `horizon` steps before it, as `body` does
    body      `horizon` steps that are read as context only, then the window
    task_B    int32 task ids
    param_BX  the hidden parameters of the task: what oracles and probes are given, and nobody else
    """

    prompt: Trajectories
    body: Trajectories
    task_B: Array
    param_BX: Array


@record
class Mean:
    """A mergeable mean: `total / count`, summed over devices, steps and shards before the division."""

    total: Array
    count: Array

    @classmethod
    def of(cls, values: Array, mask: Array | None = None) -> Mean:
        """Mean of `values`, any shape, over the positions where `mask` (same shape) is 1."""
        values = jnp.asarray(values, jnp.float32)
        if mask is None:
            return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
        mask = jnp.asarray(mask, jnp.float32)
        return cls((values * mask).sum(), mask.sum())

    def compute(self) -> Array:
        return self.total / jnp.maximum(self.count, 1e-12)


@record
class TrainState:
    """All that a run needs in order to go on: with (seed, step) it determines every later bit.

    step       int32, updates done, skipped ones included
    params     the learner's parameters, one plain pytree
    opt_state  the optimiser's state, with the count of skipped updates (see `optim`)
    carry      what the learner keeps between updates: () for most, a memory or a moving average for some
    """

    step: Array
    params: PyTree
    opt_state: PyTree
    carry: PyTree


@dataclasses.dataclass(frozen=True)
class Learner:
    """A learner is a record of pure functions; the seam is the gradient, not the loss.

    init(key, batch) -> (params, carry)
    grads(params, carry, batch, key) -> (grads, carry, means)     means: dict[str, Mean]
    predict(params, carry, batch) -> outputs                      the only thing evaluators call
    state_size(length) -> int   floats that a prediction after `length` positions can read of the episode so far
    stream: Stream | None       the same predictions one position at a time, where the learner has that form
    path(params, carry, batch, steps) -> outputs after 0..steps inner steps, stacked; None where it takes no steps
    batch_schedule(data, carry) -> (data, index)   for learners that stay on a batch for several updates, or lengthen
                                their task: the task data to draw from, and the number of the batch; None: one batch,
                                one update
    warn(numbers) -> list[str]  what a person should hear about the logged numbers, if anything
    pretrained                  {top-level part of params that must come from `init_from`: {dotted field of that run's
                                config: the value that it must have}}; {} asks for nothing
    """

    init: Callable
    grads: Callable
    predict: Callable
    state_size: Callable[[int], int]
    stream: Stream | None = None
    path: Callable | None = None
    batch_schedule: Callable | None = None
    warn: Callable[[Mapping[str, float]], list[str]] = lambda numbers: []
    pretrained: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stream:
    """One position at a time: `step` run over an episode gives what `predict` gives at once.

    init(params, num, length) -> state                       for `num` episodes of at most `length` positions
    step(params, state, x_BX, y_prev_B) -> (state, logits_BV)   y_prev_B = -1 at the first position
    """

    init: Callable
    step: Callable


@dataclasses.dataclass(frozen=True)
class TaskDist:
    """A distribution over tasks: what it draws is a function of (data, key, split, num) alone.

    data    a pytree of arrays (datasets, the number of tasks, ...) passed *into* the jitted program as an argument,
            so that a dataset of the same shape or another number of tasks never recompiles it
    sample(data, key, split, num) -> Episodes (or another batch record)   traced; `split` and `num` static
    splits  the names `sample` knows, the first being the one that training draws from
    facts   what learners and reports need to know before any batch exists: classes, feature shape, episode length
    traced  {name: function} of the config's fields that act through the leaf `data[name]` alone, function(value) being
            that leaf (ConfigError for a bad value): what replicas of a run may vary
    """

    data: PyTree
    sample: Callable
    splits: tuple[str, ...]
    facts: Mapping[str, Any]
    traced: Mapping[str, Callable] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Env:
    """A family of environments, one per parameter vector; actions lie in -1 to 1. Functions of one: vmap them.

    draw(key) -> param_X                                    a task
    reset(key, param_X) -> (state, obs_S)
    step(key, state, act_A, param_X) -> (state, obs_S, rew, done)
    expert(obs_S, time, param_X) -> act_A                   acts with the parameters known; None where nobody can;
                                                            of a whole batch at once where there is `host`
    spread_X                                                how far apart tasks are: the unit in which behaviours err
    length                                                  steps after which an episode is cut
    host(param_BX, seed) -> (obs_BS, step(act_BA) -> (obs_BS, rew_B, done_B))   simulators outside JAX have this
                                                            alone, stateful and in lock-step, and no reset or step
    facts                                                   name, version, obs_size, act_size, and what else reports say
    """

    draw: Callable
    reset: Callable | None
    step: Callable | None
    expert: Callable | None
    spread_X: Any
    length: int
    facts: Mapping[str, Any]
    host: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """run(params, carry) -> Result; deterministic, because its episodes are frozen by its own seed."""

    run: Callable


Result = dict[str, Any]
"""What an evaluator returns, plain JSON: `headline` {name: number}, optionally `tables`, `curves`, `facts`.

headline  the numbers that go into the RESULT line, by plain names
tables    [{title, columns, rows}]
curves    [{title, x, xlabel, ylabel, series: [{name, y, ci95, dashed}], levels: {name: y}}]
facts     anything else worth keeping: seeds, hashes, protocol
"""
