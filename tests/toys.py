"""A task and a learner that compile at once, runs of them, and what a run leaves: for tests of the loop."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.runtime import config as config_lib, optimiser, replicas
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import Experiment
from metalearn.types import EpisodeSpec, Evaluator, Learner, Mean, TaskDist, record


@record
class Batch:
    x_BX: jax.Array


def toy(config) -> Experiment:
    """A task and a learner that compile at once: a noisy line fit with a carry; data['bad'] makes NaN batches."""

    def sample(data, key, split, num):
        x_BX = jax.random.normal(key, (num, 2))
        return Batch(jnp.where(jax.random.uniform(key) < data["bad"], jnp.nan, x_BX))

    def init(key, batch):
        return {"w": jax.random.normal(key, (2,))}, {"seen": jnp.zeros(())}

    def loss(params, batch, key):
        return ((batch.x_BX @ params["w"] - 1 + 0.1 * jax.random.normal(key)) ** 2).mean()

    def grads(params, carry, batch, key):
        value, slope = jax.value_and_grad(loss)(params, batch, key)
        return slope, {"seen": carry["seen"] + batch.x_BX.sum()}, {"loss": Mean.of(value)}

    predict = lambda params, carry, batch: batch.x_BX @ params["w"]
    evaluator = Evaluator(lambda params, carry: {"headline": {"w": float(np.asarray(params["w"]).sum())}})
    tx = optimiser.make(**config.optim.to_dict(), total_steps=config.train.steps)
    task = TaskDist({"bad": np.float32(0)}, sample, ("train",),
                    EpisodeSpec(length=1, features=1, targets="classes", outputs=4), {}, {"num_tasks": np.float32})
    learner = Learner(init, grads, predict, lambda length: 0)
    return Experiment(config, task, learner, tx, {"e": evaluator}, replicas.plan(config, task))


def settings(*overrides):
    return config_lib.load("configs/gpicl.py:smoke", ["train.devices=1", *overrides])


def same(a, b):
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes()
               for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def final(workdir):
    """What a run leaves that must not depend on how often it was interrupted."""
    checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"))
    step = checkpoints.steps()[-1]
    texts = [open(os.path.join(workdir, name)).read() for name in ("metrics.jsonl", "eval/history.jsonl")]
    return step, {k: v["sha256"] for k, v in checkpoints.meta(step)["leaves"].items()}, *texts


# checkpoints fall inside the stretch that a line of metrics covers
RUN = ("train.steps=12", "train.log_every=6", "train.save_every=4", "train.eval_every=4")
