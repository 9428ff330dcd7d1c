"""The records that flow through the house, and the one key to its letters.

Letters (arrays of known rank carry their axes as a suffix, `logits_BTV`):

  B tasks in a batch    T steps of an episode   L tokens          D width            H heads
  K head size           F feed-forward width    V classes         X input features   S observation
  A action              C task code             P prompt steps    M memory slots     W slot width
  N items in a dataset     E evaluation episodes   R replicas (seeds)

Batch-major outside a scan body. Scalars, parameters and opaque trees are bare.

Time convention: at index t `obs_t` is seen, `act_t` taken, `rew_t` and `terminated_t` result from *that* action;
`rtg_t`, the return-to-go, is the sum of `rew_k` over k >= t. Terminated and truncated are two fields, as in Gymnasium.
Masks: 1 = counts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Self, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
HostArray = jax.Array | np.ndarray
Perhaps = Callable | Any  # a function, or None where the record's docstring says so and whoever calls has asked
PyTree = Any


@dataclass_transform(frozen_default=True)
def record(cls):
    """A frozen dataclass that is also a pytree: every field is a child, named in key paths; a field with a default is a
    plain value that is known while a program is traced."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    static = [f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING]
    jax.tree_util.register_dataclass(cls, meta_fields=static,
                                     data_fields=[f.name for f in dataclasses.fields(cls) if f.name not in static])
    return cls


def leaf_name(path) -> str:
    """'params/block_0/qkv/kernel' of a key path: what checkpoints store a leaf under and configs match it by."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """{leaf_name: leaf} of a tree."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


class Record:
    """What every record can do."""

    def replace(self, **fields: Any) -> Self:
        """The same with other values of these fields."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]: `record` makes dataclasses


@record
class Episodes(Record):
    """B supervised episodes of T positions.

    x_BTX     inputs; images may keep trailing axes, (B, T, height, width, channels)
    y_BT      int32 labels, or float targets (B, T, Y) for regression
    mask_BT   f32; 1 where the position counts in the loss and in the scores
    task_B    int32 task ids
    index_BT  int32 dataset item shown at each position, -1 where there is none; with `y_BT` and `task_B` it
              says exactly what was drawn, so frozen episodes are hashed by it and notebooks draw by it
    support   int: the first so many positions are shown with their labels, the others are asked; 0 where all are asked
    ways      int: classes of these very episodes, labels being 0..ways-1; 0 for targets
    """

    x_BTX: Array
    y_BT: Array
    mask_BT: Array
    task_B: Array
    index_BT: Array
    support: int = 0
    ways: int = 0


@record
class Trajectories(Record):
    """B stretches of T steps of reinforcement learning, in the time convention above; padding is zero everywhere.

    obs_BTS, act_BTA, rew_BT      observation, action (in -1 to 1), reward
    next_BTS                      the observation after the step
    rtg_BT                        return-to-go, unscaled and undiscounted
    time_BT                       int32 step number within the episode
    terminated_BT, truncated_BT   bool; the environment ended here, the episode's length did
    mask_BT                       f32; 0 where the stretch leaves the episode
    """

    obs_BTS: Array
    act_BTA: Array
    rew_BT: Array
    next_BTS: Array
    rtg_BT: Array
    time_BT: Array
    terminated_BT: Array
    truncated_BT: Array
    mask_BT: Array


@record
class Prompted(Record):
    """A stretch to act in and another episode of the same task to learn from.

    prompt    all-zero mask where there is none; begins with the `history` steps before it, as `body` does
    body      `history` steps that are read as context only, then the window
    conditioning_BT  what the policy is conditioned on at each step of `body`: the return-to-go, or the episode's rank
    task_B    int32 task ids
    param_BX  the hidden parameters of the task: what oracles and probes are given, and nobody else
    """

    prompt: Trajectories
    body: Trajectories
    conditioning_BT: Array
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
class TrainState(Record):
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
    path(params, carry, batch, steps) -> outputs after 0..steps inner steps, stacked; None where it takes no steps
    begin(params, batch) -> cache, extend(params, cache, batch, time) -> (outputs, cache)   of a policy, both or neither
                                step by step what predict says of an episode that its window holds (see rl/acting);
                                whoever replaces predict replaces them as well, or takes them away
    boundaries(params, batch) -> (true, synthetic)   gradients (K, B, entries) of the later loss in the state at K
                                boundaries, for learners with a model of them
    batch_schedule(data, carry) -> (data, index)   for learners that stay on a batch for several updates, or lengthen
                                their task: the task data to draw from, and the number of the batch; None: one batch,
                                one update
    warn(numbers) -> list[str]  what a person should hear about the logged numbers, if anything
    pretrained                  {top-level part of params that must come from `init_from`: {dotted field of that run's
                                config: the value that it must have}}; {} asks for nothing
    any_ways                    whether episodes may have other numbers of classes than the training task's
    reads_labels                whether a prediction depends on the labels before it: else there is no support to give
    """

    init: Callable
    grads: Callable
    predict: Callable
    state_size: Callable[[int], int]
    path: Perhaps = None
    begin: Perhaps = None
    extend: Perhaps = None
    boundaries: Perhaps = None
    batch_schedule: Callable | None = None
    warn: Callable[[Mapping[str, float]], list[str]] = lambda numbers: []
    pretrained: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    any_ways: bool = False
    reads_labels: bool = True


@dataclasses.dataclass(frozen=True)
class EpisodeSpec:
    """What learners and evaluators need to know of a task's `Episodes` before any exists.

    length        positions of an episode           features     inputs at a position, flattened
    targets       classes | bits | real             outputs      how many of them a position has
    image_shape   (height, width, channels) where inputs are images, else None
    shots, queries   support and query examples (per class, where there are classes); 0 where all positions are asked
    train_outputs    classes of a training episode, where training has another number of them
    max_difficulty   the highest difficulty in training, `data["difficulty"]`; 0 where tasks do not differ in it
    longest       the highest that the split `exact` has room for
    rare_from     labels from here on are rare; None where none are
    answers_early   labels hold an answer at positions before the one where it is asked
    class_N, num_classes   the class of each meta-training example, and how many there are; for learners that name them
    """

    length: int
    features: int
    targets: str
    outputs: int
    image_shape: tuple[int, ...] | None = None
    shots: int = 0
    queries: int = 0
    train_outputs: int = 0
    max_difficulty: int = 0
    longest: int = 0
    rare_from: int | None = None
    answers_early: bool = False
    class_N: Any = None
    num_classes: int = 0

    @property
    def classes(self) -> bool:
        """Whether the targets are labels."""
        return self.targets == "classes"


@dataclasses.dataclass(frozen=True)
class TaskDist:
    """A distribution over tasks: what it draws is a function of (data, key, split, num) alone.

    data    a pytree of arrays (datasets, the number of tasks, ...) passed *into* the jitted program as an argument,
            so that a dataset of the same shape or another number of tasks never recompiles it
    sample(data, key, split, num) -> Episodes (or another batch record)   traced; `split` and `num` static
    splits  the names `sample` knows, the first being the one that training draws from
    spec    what learners and evaluators need to know before any batch exists: an EpisodeSpec or a TrajectorySpec
    facts   what reports say of it: names, hashes, the protocol in words; no learner reads them
    collect(directory) -> TaskDist   for tasks whose data have to be made first: this distribution with its data, made
            into or read from a cache there; until then `data` is None. None where the data are there from the start
    traced  {name: function} of the config's fields that act through the leaf `data[name]` alone, function(value) being
            that leaf (ConfigError for a bad value): what replicas of a run may vary
    pool(name) -> TaskDist   this distribution with the examples of dataset `name` in the place of the split `new`
            (ConfigError where it is absent or unfit); None where a task has no such split
    inputs  from images to what `sample` gives of them, see `datasets.Inputs`; None where inputs are no images
    """

    data: PyTree
    sample: Callable
    splits: tuple[str, ...]
    spec: Any
    facts: Mapping[str, Any]
    traced: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    collect: Callable | None = None
    pool: Perhaps = None
    inputs: Any = None

    @functools.cached_property
    def placed(self) -> PyTree:
        """`data` on the device: put there once, for all that draw from this very record."""
        return jax.device_put(self.data)


@dataclasses.dataclass(frozen=True)
class TrajectoryStatistics:
    """Of the training episodes alone; zeros and ones as long as there are none (see `TaskDist.collect`).

    obs_mean_S, obs_std_S   of observations
    change_std_S            of next observation minus observation
    rew_std                 of rewards
    rew_quantiles           the nine deciles of rewards
    best_return_B           each training task's best return
    """

    obs_mean_S: Any
    obs_std_S: Any
    change_std_S: Any
    rew_std: float
    rew_quantiles: Any
    best_return_B: Any


@dataclasses.dataclass(frozen=True)
class TrajectorySpec:
    """What learners and evaluators know of offline reinforcement learning before any batch exists.

    env, env_fields    the environment that the data are from; the config's block that it was built from
    obs_size, act_size, param_size   entries of an observation, of an action, of a task's hidden parameters
    episode            steps of an episode
    history, window    steps of context before a window; steps of the window, which the policy sees
    prompt_span        steps of another episode to choose a prompt from, 0 for none
    conditioning       return | rank: what `Prompted.conditioning_BT` holds
    scale              what returns-to-go are divided by before they enter a network
    """

    env: Env
    env_fields: Mapping[str, Any]
    obs_size: int
    act_size: int
    param_size: int
    episode: int
    history: int
    window: int
    prompt_span: int
    conditioning: str
    scale: float
    statistics: TrajectoryStatistics

    @property
    def length(self) -> int:
        """Positions of a prediction: the window's."""
        return self.window


@dataclasses.dataclass(frozen=True)
class Env:
    """A family of environments, one per parameter vector; actions lie in -1 to 1. Functions of one: vmap them.

    draw(key) -> param_X                                    a task
    reset(key, param_X) -> (state, obs_S)
    step(key, state, act_A, param_X) -> (state, obs_S, rew, terminated)
    expert(obs_S, time, param_X) -> act_A                   acts with the parameters known; None where nobody can;
                                                            of a whole batch at once where there is `host`
    spread_X                                                how far apart tasks are: the unit in which behaviours err
    length                                                  steps after which an episode is truncated
    host(param_BX, seed_B) -> (obs_BS, step(act_BA) -> (obs_BS, rew_B, terminated_B, success_B))   simulators outside
                                                            JAX have this alone, stateful and in lock-step, and no reset
                                                            or step; environment b draws from seed b alone. success_B
                                                            counts where facts["success"] is true
    facts                                                   name, version, obs_size, act_size, and what else reports say
    """

    draw: Callable
    reset: Perhaps
    step: Perhaps
    expert: Perhaps
    spread_X: Any
    length: int
    facts: Mapping[str, Any]
    host: Perhaps = None


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """run(params, carry) -> Result; deterministic, because its episodes are frozen by its own seed."""

    run: Callable


Result = dict[str, Any]
"""What an evaluator returns, plain JSON: `headline` {name: number}, optionally `tables`, `curves`, `facts`.

headline  the numbers that go into the RESULT line, under the evaluator's label
tables    [{title, columns, rows}]
curves    [{title, x, xlabel, ylabel, series: [{name, y, ci95, dashed}], levels: {name: y}}]
facts     anything else worth keeping: seeds, hashes, protocol
"""
