"""A trained run as something to predict with, on plain arrays.

  learner = metalearn.load("runs/proto")
  logits_QV = learner.predict(x_support, y_support, x_query)

Inputs are as the run's task gives them to its learner: normalised, and projected where the task projects
(`learner.normalise(images)` does it for few-shot images).
"""

from __future__ import annotations

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.runtime import experiment as experiment_lib
from metalearn.runtime import loop, replicas
from metalearn.runtime import workdir as workdir_lib
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import Experiment
from metalearn.types import Episodes, EpisodeSpec, PyTree
from metalearn.validate import require


@dataclasses.dataclass(frozen=True)
class Trained:
    """One network of a run, at one step: its parts, and what it predicts. Nothing is written."""

    experiment: Experiment
    params: PyTree
    carry: PyTree
    step: int

    def predict(self, x_support: np.ndarray, y_support: np.ndarray, x_query: np.ndarray) -> np.ndarray:
        """Answers of the queries, each from the support alone: logits (Q, V), or targets (Q, Y) of a regression.

        x_support, y_support   (S, ...) inputs and labels 0..V-1, or targets (S, Y), of one task
        x_query                (Q, ...) inputs

        Learners of support/query episodes take any sizes that they can; one that reads an episode in its order (in
        context) reads the support as it comes, then one query. ConfigError: sizes that do not fit, labels out of range.
        """
        spec = self.experiment.task.spec
        require(isinstance(spec, EpisodeSpec), "workdir", self.experiment.config.task.name,
                "is a task of trajectories: it has no support and queries")
        require(self.experiment.learner.reads_labels, "workdir", self.experiment.config.learner.name,
                "reads no labels: it cannot learn from a support")
        x_SX, y_S, x_QX = (np.asarray(a) for a in (x_support, y_support, x_query))
        ways = self._check(spec, x_SX, y_S, x_QX)
        if spec.shots:
            asked = np.zeros((len(x_QX), *y_S.shape[1:]), y_S.dtype)
            batch = _episodes(np.concatenate([x_SX, x_QX])[None], np.concatenate([y_S, asked])[None], len(x_SX), ways)
            return np.asarray(self._outputs(self.params, self.carry, batch)[0, len(x_SX):])
        many = lambda a: np.broadcast_to(a, (len(x_QX), *a.shape))
        x_QTX = np.concatenate([many(x_SX), x_QX[:, None]], 1)
        y_QT = np.concatenate([many(y_S), np.zeros((len(x_QX), 1), y_S.dtype)], 1)
        return np.asarray(self._outputs(self.params, self.carry, _episodes(x_QTX, y_QT, 0, ways))[:, -1])

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Pixels as the task's learner sees them: minus the meta-training images' mean, by their std."""
        facts = self.experiment.task.facts
        require("mean" in facts, "workdir", self.experiment.config.task.name,
                "is a task without a mean and std of pixels")
        return (np.asarray(images, np.float32) - facts["mean"]) / facts["std"]

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
        any_ways = spec.shots and self.experiment.learner.any_ways
        require(any_ways or ways <= spec.outputs, "y_support", ways,
                f"this learner knows {spec.outputs} classes at most")
        return ways if any_ways else spec.outputs

    @functools.cached_property
    def _outputs(self):
        return jax.jit(self.experiment.learner.predict)


def _episodes(x_BTX: np.ndarray, y_BT: np.ndarray, support: int, ways: int) -> Episodes:
    B, T = y_BT.shape[:2]
    mask_BT = np.broadcast_to(np.arange(T) >= support, (B, T)).astype(np.float32)
    y_BT = jnp.asarray(y_BT, jnp.int32 if ways else jnp.float32)
    return Episodes(jnp.asarray(x_BTX, jnp.float32), y_BT, jnp.asarray(mask_BT), jnp.zeros(B, jnp.int32),
                    jnp.full((B, T), -1, jnp.int32), support=support, ways=ways)


def load(workdir: str, step: int | None = None, replica: int = 0) -> Trained:
    """The newest healthy checkpoint of a run, or `step`; of several replicas the one asked for.

    Raises ConfigError when `workdir` is none or holds no checkpoint, CheckpointError when none is healthy.
    """
    workdir = os.path.abspath(workdir)
    config, checkpoints = workdir_lib.read_config(workdir), Checkpoints(os.path.join(workdir, "checkpoints"))
    require(bool(checkpoints.steps()), "workdir", workdir, "holds no checkpoint yet")
    experiment = experiment_lib.with_data(experiment_lib.build(config), workdir)
    plan = experiment.plan
    require(0 <= replica < plan.num, "replica", replica, f"must lie between 0 and {plan.num - 1}")
    params, carry, step = loop.restore(experiment, checkpoints, step)
    return Trained(experiment, replicas.one(plan, params, replica), replicas.one(plan, carry, replica), step)
