"""From a config to the parts of an experiment, and the evaluation that train.py and eval.py share.

Building touches no device: datasets are read on the host, everything else is functions. So a bad config is refused
in seconds, before JAX starts, and before data that have to be collected are (`with_data`).
"""

import dataclasses
import hashlib
import re
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from metalearn import lookup
from metalearn.runtime import optimiser, replicas, sharding
from metalearn.types import Evaluator, Learner, PyTree, TaskDist, named_leaves
from metalearn.validate import call, fields, multiple_of, nonnegative, one_of, positive, require, within

RUN_S_OWN = ("step", "seconds", "parameters", "state_size", "skipped", "setting", "replicas", "intervals")
LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
SECTIONS = ("seed", "replicas", "task", "learner", "optim", "train", "evaluators", "init_from")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts, built and checked. `by_replica`: each replica's evaluators, where the task's data vary."""

    config: ConfigDict
    task: TaskDist
    learner: Learner
    tx: optax.GradientTransformation
    evaluators: dict[str, Evaluator]
    plan: replicas.Plan
    by_replica: tuple[dict[str, Evaluator], ...] = ()

    def evaluators_of(self, r: int) -> dict[str, Evaluator]:
        """The evaluators that replica r's own run would have."""
        return self.by_replica[r] if self.by_replica else self.evaluators


def build(config: ConfigDict, task: TaskDist | None = None, evaluators: bool = True) -> Experiment:
    """Builds and checks every part; ConfigError names the first wrong field as `config.<path>`.

    task         the config's own distribution, where `with_data` has got its data already, or as `stored` keeps it
    evaluators   False leaves them out: a stored task has nothing to evaluate on
    """
    with within("config"):
        fields(config.to_dict(), SECTIONS, missing="every config has " + ", ".join(SECTIONS))
        seed = config.seed
        require(type(seed) is int and 0 <= seed < 2**31, "seed", seed, "must be an integer from 0 to 2**31 - 1")
        with within("train"):
            call(_check_train, **config.train.to_dict())
        if task is None:
            task = _task(config)
        learner = _build("learner", "learners", config.learner, task.spec)
        require(config.train.accumulate == 1 or not learner.batch_schedule, "train.accumulate", config.train.accumulate,
                "must be 1: this learner keeps a state of the whole batch from update to update")
        with within("optim"):
            tx = call(optimiser.make, **config.optim.to_dict(), total_steps=config.train.steps)
        plan = replicas.plan(config, task)
        found, by_replica = _evaluators(config, task, learner) if evaluators else {}, ()
        if plan.data and evaluators:  # replicas that differ in their seeds alone share theirs, frozen episodes included
            shared = {}
            for r, setting in enumerate(plan.settings):
                same = repr({**setting, "seed": 0})
                if same not in shared:
                    shared[same] = _evaluators(config, replicas.task_of(plan, task, r), learner)
                by_replica += (shared[same],)
    return Experiment(config, task, learner, tx, found, plan, by_replica)


def _task(config: ConfigDict) -> TaskDist:
    return _build("task", "tasks", config.task)


def _evaluators(config: ConfigDict, task: TaskDist, learner: Learner) -> dict[str, Evaluator]:
    for label in config.evaluators:
        require(label not in RUN_S_OWN, f"evaluators.{label}", "", "a run's own numbers are called so: another label")
        require(bool(LABEL.fullmatch(label)), "evaluators", label, "a label names files: letters, digits, _ and -, at "
                "most 64")
    return {name: _build(f"evaluators.{name}", "evaluators", block, task, learner)
            for name, block in config.evaluators.items()}


def with_data(experiment: Experiment, directory: str) -> Experiment:
    """The experiment with its task's data, which some tasks have to make first, on the default device, and keep in
    `directory` unless the config names another place (see `TaskDist.collect`). Call it before reading `task.data`."""
    if experiment.task.collect is None:
        return experiment
    with within("config"), within("task"):
        task = experiment.task.collect(directory)
    return build(experiment.config, task)


def fingerprint(data: PyTree) -> str:
    """One SHA-256 over names, types, shapes and bytes of a task's data."""
    sha = hashlib.sha256()
    for name, leaf in named_leaves(data).items():
        array = np.ascontiguousarray(leaf)
        sha.update(f"{name} {array.dtype}{array.shape}".encode())
        sha.update(array.data if array.size and array.dtype.kind != "V" else array.tobytes())
    return sha.hexdigest()


def _build(path: str, kind: str, block: ConfigDict, *context: Any) -> Any:
    with within(path):
        return lookup.of_block(kind, block.to_dict(), *context)


def _check_train(*, batch: int, accumulate: int, steps: int, steps_per_call: int, log_every: int, save_every: int,
                 eval_every: int, keep: int, max_bad_steps: int, devices: int, mesh: dict) -> None:
    positive(batch=batch, accumulate=accumulate, steps=steps, steps_per_call=steps_per_call, log_every=log_every,
             save_every=save_every, keep=keep, max_bad_steps=max_bad_steps)
    nonnegative(eval_every=eval_every, devices=devices)
    # the last call is cut to what is left, so steps itself may be anything
    multiple_of("train.steps_per_call", steps_per_call, log_every=log_every, eval_every=eval_every,
                save_every=save_every)
    multiple_of("train.accumulate", accumulate, batch=batch)
    with within("mesh"):
        fields(mesh, ("model", "params"))
        positive(model=mesh["model"])
        one_of(sharding.PARAMS, params=mesh["params"])


def sizes(experiment: Experiment, params: PyTree) -> dict[str, int]:
    """Parameter count of one replica, and the floats that a prediction at an episode's end can read of what went
    before."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) // experiment.plan.num
    return {"parameters": int(count), "state_size": int(experiment.learner.state_size(experiment.task.spec.length))}

