"""A trained run as something to predict with, on plain arrays, or to look into.

  learner = metalearn.load("runs/proto")
  logits_QV = learner.predict(x_support, y_support, x_query)

  policy = metalearn.load("runs/metadt")
  act_A = policy.act(observations, actions, rewards)

  batch = learner.sample("test", 8)                             # or learner.episode(x_support, y_support, x_query)
  outputs, inside = learner.read(batch)                         # {"blocks_0": its values, ...}
  outputs = learner.write(batch, {"blocks_0": lambda value, position: value * 0})

Inputs are as the run's task gives them to its learner: `learner.normalise(images)` resizes, normalises and projects
as it does. `sample` and `experiment`, which holds the evaluators, alone need the data that the run was trained on.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metalearn.nn import taps
from metalearn.rl import acting, rollout
from metalearn.runtime import experiment as experiment_lib, loop, replicas, stored, workdir as workdir_lib
from metalearn.runtime.experiment import Experiment
from metalearn.types import Array, Episodes, EpisodeSpec, Learner, Prompted, TaskDist, Trajectories, TrajectorySpec
from metalearn.validate import ConfigError, fraction, one_of, positive, require


@dataclasses.dataclass(frozen=True)
class Trained:
    """One network of a run, at one step: its parts, and what it predicts. Nothing is written.

    task   what is kept of the run's task: `spec`, `facts`, `inputs`; its data are `experiment.task.data`
    """

    workdir: str
    config: ConfigDict
    task: TaskDist
    learner: Learner
    params: Any
    carry: Any
    step: int
    plan: replicas.Plan

    @property
    def parameters(self) -> int:
        """How many numbers the learner has learned."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The run's parts with its task's data, which are read here, and made anew where they were collected and are
        gone; ConfigError where they cannot be read any more."""
        try:
            return experiment_lib.with_data(experiment_lib.build(self.config), self.workdir)
        except ConfigError as error:
            raise ConfigError(error.field, error.value, f"{error.allowed}; predictions need no data, but this asks for "
                              "the run's own") from None

    def predict(self, x_support: np.ndarray, y_support: np.ndarray, x_query: np.ndarray) -> np.ndarray:
        """Answers of the queries, each from the support alone: logits (Q, V), or targets (Q, Y) of a regression.

        x_support, y_support   (S, ...) inputs and labels 0..V-1, or targets (S, Y), of one task
        x_query                (Q, ...) inputs

        Learners of support/query episodes take any sizes that they can; one that reads an episode in its order (in
        context) reads the support as it comes, then one query. ConfigError: sizes that do not fit, labels out of range.
        """
        batch = self.episode(x_support, y_support, x_query)
        out = np.asarray(self.outputs(batch))
        return out[0, batch.support:] if batch.support else out[:, -1]

    def act(self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray,
            prompt: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None, target: float | None = None) -> np.ndarray:
        """The next action (A,), in -1 to 1, of a policy that has seen so much of its episode (Meta-DT and its kin).

        observations   (T, S), the newest last: one at an episode's first step
        actions, rewards   (T - 1, A) in -1 to 1 and (T - 1,): what was done and paid between them
        prompt         (observations (P + 1, S), actions (P, A), rewards (P,)) of an earlier episode on the same task;
                       None where there is none
        target         what to aim at: a return, or with conditioning=rank a rank up to 1, the best; None is the mean
                       over training tasks of each one's best return, or rank 1

        It is the mean action, as the evaluator `returns` plays its deterministic episodes. ConfigError: a run without
        a policy, arrays that do not fit or are longer than the task's episodes.
        """
        spec = self.task.spec
        require(isinstance(spec, TrajectorySpec), "workdir", self.config.task.name,
                "is no task of trajectories: it has nothing to act in")
        obs_TS, act_TA, rew_T = _steps(spec, "", observations, actions, rewards)
        time = len(rew_T)
        require(time < spec.episode, "observations", len(obs_TS), f"must be at most {spec.episode}, an episode's steps")
        if target is None:
            target = 1.0 if spec.conditioning == "rank" else float(spec.statistics.best_return_B.mean())
        if spec.conditioning == "rank":
            fraction(target=target)
        put = lambda a, values: a.at[0, :len(values)].set(values)
        history = acting.begin(spec, np.full(1, target, np.float32))
        history = history.replace(obs_BTS=put(history.obs_BTS, obs_TS), act_BTA=put(history.act_BTA, act_TA),
                                  rew_BT=put(history.rew_BT, rew_T))
        earlier = acting.no_prompt(spec, 1) if prompt is None else _prompt(spec, *prompt)
        act_A = np.asarray(self._decide(self.params, self.carry, earlier, history, np.int32(time)))[0]
        require(bool(np.isfinite(act_A).all()), "workdir", self.config.learner.name,
                "acts by the task's hidden parameters, which nobody knows here")
        return act_A

    def sample(self, split: str, num: int, seed: int = 0, data: Any = None) -> Episodes | Prompted:
        """`num` tasks' episodes of the run's own task, of one of its `splits`; `data` in the place of the task's."""
        task = self.experiment.task
        one_of(task.splits, split=split)
        positive(num=num)
        key = jax.random.key(seed, impl="threefry2x32")  # jit remembers functions that live as long as this
        return jax.jit(task.sample, static_argnums=(2, 3))(task.data if data is None else data, key, split, num)

    def episode(self, x_support: np.ndarray, y_support: np.ndarray, x_query: np.ndarray) -> Episodes:
        """The batch that `predict` makes of the same arrays: support and queries side by side in one row, or, for a
        learner that reads in order, a row for each query."""
        spec = self.task.spec
        require(isinstance(spec, EpisodeSpec), "workdir", self.config.task.name,
                "is a task of trajectories: it has no support and queries")
        require(self.learner.reads_labels, "workdir", self.config.learner.name,
                "reads no labels: it cannot learn from a support")
        x_SX, y_S, x_QX = (np.asarray(a) for a in (x_support, y_support, x_query))
        ways = self._check(spec, x_SX, y_S, x_QX)
        if spec.shots:
            asked = np.zeros((len(x_QX), *y_S.shape[1:]), y_S.dtype)
            return _episodes(np.concatenate([x_SX, x_QX])[None], np.concatenate([y_S, asked])[None], len(x_SX), ways)
        many = lambda a: np.broadcast_to(a, (len(x_QX), *a.shape))
        x_QTX = np.concatenate([many(x_SX), x_QX[:, None]], 1)
        y_QT = np.concatenate([many(y_S), np.zeros((len(x_QX), 1), y_S.dtype)], 1)
        return _episodes(x_QTX, y_QT, 0, ways)

    def outputs(self, batch: Episodes | Prompted) -> Any:
        """What the learner predicts of a whole batch: logits (B, T, V) of most, a dict of arrays of some."""
        return jax.jit(self.learner.predict)(self.params, self.carry, batch)

    def read(self, batch: Episodes | Prompted, of: int = 0) -> tuple[Any, dict[str, Array]]:
        """(outputs, {site: value}): what stood inside the network meanwhile; see `metalearn.nn.taps`.

        of   which network, where the learner applies several, or one several times: counted in their order,
             or from -1, the last: a Meta-DT's transformer, which reads what its world model said before
        """
        return self._read(self.params, self.carry, batch, of)

    def write(self, batch: Episodes | Prompted, sites: Mapping[str, Callable]) -> Any:
        """The outputs where each site's value is `sites[site](value, position)` in its place. ConfigError: no such
        site, another shape. Compiled anew at each call."""
        return jax.jit(taps.write(self.learner.predict, sites))(self.params, self.carry, batch)

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Images (N, height, width[, channels]), 0 to 1 or uint8, as the task's learner sees them: resized, minus the
        meta-training images' mean, by their std, projected where the task projects (see `datasets.Inputs`)."""
        require(self.task.inputs is not None, "workdir", self.config.task.name, "is a task without images")
        return self.task.inputs(images)

    def _check(self, spec: EpisodeSpec, x_SX, y_S, x_QX) -> int:
        """The number of classes (0 of a regression)."""
        require(len(x_SX) == len(y_S) > 0, "y_support", len(y_S), f"must be as many as x_support has, {len(x_SX)}")
        require(len(x_QX) > 0, "x_query", len(x_QX), "must hold at least one query")
        for field, x in (("x_support", x_SX), ("x_query", x_QX)):
            shape = x.shape[1:]
            fits = shape == spec.image_shape if spec.image_shape else int(np.prod(shape)) == spec.features
            require(fits, field, shape,
                    f"must have shape (N, {', '.join(map(str, spec.image_shape or (spec.features,)))})")
        if not spec.classes:
            return 0
        require(y_S.ndim == 1 and np.issubdtype(y_S.dtype, np.integer), "y_support", y_S.dtype, "must be integers (N,)")
        ways = int(y_S.max()) + 1
        require(y_S.min() >= 0 and len(np.unique(y_S)) == ways, "y_support", sorted(set(y_S.tolist())),
                "must be labels 0..V-1, each of them present")
        any_ways = spec.shots and self.learner.any_ways
        require(any_ways or ways <= spec.outputs, "y_support", ways,
                f"this learner knows {spec.outputs} classes at most")
        return ways if any_ways else spec.outputs

    @functools.cached_property
    def _read(self):
        predict = self.learner.predict
        return jax.jit(lambda params, carry, batch, of: taps.read(predict, of=of)(params, carry, batch),
                       static_argnums=3)

    @functools.cached_property
    def _decide(self):
        spec, learner = self.task.spec, self.learner

        @jax.jit
        def decide(params, carry, prompt, history, time):
            # parameters are not numbers, so that a policy that reads them is found out
            unknown_1X = jnp.full((1, spec.param_size), jnp.nan)
            act_BA, *_ = acting.decide(spec, learner, params, carry, prompt, history, time, jnp.zeros(1, jnp.int32),
                                      unknown_1X)
            return jnp.clip(act_BA, -1, 1)

        return decide


def _episodes(x_BTX: np.ndarray, y_BT: np.ndarray, support: int, ways: int) -> Episodes:
    B, T = y_BT.shape[:2]
    mask_BT = np.broadcast_to(np.arange(T) >= support, (B, T)).astype(np.float32)
    of_kind = jnp.asarray(y_BT, jnp.int32 if ways else jnp.float32)
    return Episodes(jnp.asarray(x_BTX, jnp.float32), of_kind, jnp.asarray(mask_BT), jnp.zeros(B, jnp.int32),
                    jnp.full((B, T), -1, jnp.int32), support=support, ways=ways)


def _prompt(spec: TrajectorySpec, observations, actions, rewards) -> Trajectories:
    """An earlier episode as the evaluator shows one: as long as the task's, masked where it ended before."""
    obs_TS, act_TA, rew_T = _steps(spec, "prompt ", observations, actions, rewards)
    P = len(rew_T)
    require(1 <= P <= spec.episode, "prompt rewards", P, f"must be 1 to {spec.episode}, an episode's steps")
    full = lambda a: np.pad(a, ((0, spec.episode - P),) + ((0, 0),) * (a.ndim - 1))[None]
    on_BT = full(np.ones(P, np.float32))
    return acting.as_prompt(spec, rollout.assemble(full(obs_TS[:-1]), full(act_TA), full(rew_T), full(obs_TS[1:]),
                                                   np.zeros_like(on_BT), on_BT))


def _steps(spec: TrajectorySpec, of: str, observations, actions, rewards) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays in f32, checked: one more observation than actions and rewards."""
    found = [np.asarray(a, np.float32) for a in (observations, actions, rewards)]
    num = len(np.atleast_1d(found[2]))
    for name, a, shape in zip(("observations", "actions", "rewards"), found,
                              ((num + 1, spec.obs_size), (num, spec.act_size), (num,)), strict=True):
        fits = a.shape == shape or (num == 0 and a.size == 0 and name == "actions")
        require(fits, of + name, a.shape, f"must have shape {shape}, as rewards are {num}")
        require(bool(np.isfinite(a).all()), of + name, "not finite", "must be finite numbers")
    obs_TS, act_TA, rew_T = found
    require(num == 0 or np.abs(act_TA).max() <= 1, of + "actions", float(np.abs(act_TA).max(initial=0)),
            "must lie between -1 and 1")
    return obs_TS, act_TA.reshape(num, spec.act_size), rew_T


def load(workdir: str, step: int | None = None, replica: int = 0) -> Trained:
    """The newest healthy checkpoint of a run, or `step`; of several replicas the one asked for. The data that it was
    trained on need not be there.

    Raises ConfigError when `workdir` is none or holds no checkpoint, CheckpointError when none is healthy.
    """
    workdir = os.path.abspath(workdir)
    config = workdir_lib.read_config(workdir)
    task = stored.read(workdir, config)
    experiment = experiment_lib.build(config, task, evaluators=task is None)
    plan = experiment.plan
    require(0 <= replica < plan.num, "replica", replica, f"must lie between 0 and {plan.num - 1}")
    experiment, params, carry, step = loop.restore(experiment, workdir, step)
    return Trained(workdir, config, experiment.task, experiment.learner, replicas.one(plan, params, replica),
                   replicas.one(plan, carry, replica), step, plan)
