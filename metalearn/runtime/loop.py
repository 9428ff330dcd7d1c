"""The two jitted programs of a run: how its state begins, and one update of it; and its state read back.

One loop for every family.

With several replicas (see `replicas`) both are mapped over them: keys are (R,), and so is every leaf but the step.
"""

from typing import Any

import jax
import optax

from metalearn.runtime import exported, optimiser, replicas, sharding
from metalearn.runtime.experiment import Experiment, with_data
from metalearn.types import Array, Mean, PyTree, TrainState
from metalearn.validate import require


def make_init(experiment: Experiment):
    """init(data, key) -> TrainState; `key` alone decides the parameters."""
    plan = experiment.plan

    def one(data, key):
        key_batch, key_params = jax.random.split(key)
        batch = experiment.task.sample(data, key_batch, experiment.task.splits[0], experiment.config.train.batch)
        params, carry = experiment.learner.init(key_params, batch)
        state = TrainState(jax.numpy.zeros((), "int32"), params, experiment.tx.init(params), carry)
        # a weakly typed leaf (made of a bare Python number) is strong after one update, and the program compiles again
        strong = lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype) if leaf.weak_type else leaf
        return jax.tree.map(strong, state)

    def each(data, key):
        state = replicas.each(plan, one, data, key)
        return state.replace(step=state.step[0])

    return jax.jit(one if plan.num == 1 else each)


def restore(experiment: Experiment, workdir: str, step: int | None) -> tuple[Experiment, PyTree, PyTree, int]:
    """(the experiment with its data, params, carry, step) of a run's newest healthy checkpoint, or `step`: what
    predicting needs, and no more. ConfigError where there is none."""
    checkpoints = exported.of(workdir)
    steps = checkpoints.steps()
    require(bool(steps), "--workdir", workdir, "holds no checkpoint yet")
    require(step is None or step in steps, "--step", step, f"must be one of {steps}")
    experiment = with_data(experiment, workdir)
    plan = experiment.plan
    template = jax.eval_shape(make_init(experiment), replicas.data(plan, experiment.task.data), replicas.roots(plan))
    found, meta = checkpoints.restore({"params": template.params, "carry": template.carry}, step)
    return experiment, found["params"], found["carry"], meta["step"]


def draw(experiment: Experiment, data: PyTree, key: Array, state: TrainState) -> tuple[PyTree, Array]:
    """(batch, the learner's key) of one replica's next update: a function of `key` and the step, and of the carry where
    a learner stays on a batch."""
    task, learner, config = experiment.task, experiment.learner, experiment.config
    index, key_learner = state.step, jax.random.split(jax.random.fold_in(key, state.step))[1]
    if learner.batch_schedule:
        data, index = learner.batch_schedule(data, state.carry)
        index = index + state.opt_state.skipped  # a refused update leaves its batch behind: else refused for ever
    key_batch = jax.random.split(jax.random.fold_in(key, index))[0]
    return task.sample(data, key_batch, task.splits[0], config.train.batch), key_learner


def place_of(experiment: Experiment, state: TrainState, mesh: jax.sharding.Mesh) -> PyTree:
    """Where each leaf of the run's state lies."""
    return sharding.of_state(state, mesh, experiment.config.train.mesh.params,
                             replicas.shared_out(experiment.plan, mesh))


def make_update(experiment: Experiment, mesh: jax.sharding.Mesh):
    """update(state, data, key, num) -> (state, means stacked over `num` steps): one jitted program, state donated.

    The batch of step n is drawn inside, from `fold_in(key, n)`: there is no iterator to save.
    """
    learner, config, plan = experiment.learner, experiment.config, experiment.plan
    shared_out = replicas.shared_out(plan, mesh)

    def one(data, key, state: TrainState, lr):
        tx: Any = experiment.tx
        if lr is not None:  # a replica's own
            tx = optimiser.make(**config.optim.to_dict() | {"lr": lr}, total_steps=config.train.steps)
        batch, key_learner = draw(experiment, data, key, state)
        batch = batch if shared_out else sharding.split_batch(batch, mesh)
        grads, carry, means = _grads(learner, config.train.accumulate, state.params, state.carry, batch, key_learner)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        good = opt_state.streak == 0
        carry = jax.tree.map(lambda new, old: jax.numpy.where(good, new, old), carry, state.carry)
        means = means | {"grad_norm": Mean.of(optax.global_norm(grads)), "skipped": Mean.of(1.0 - good)}
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, carry), means

    lr_R = jax.numpy.asarray(plan.lr) if plan.lr else None

    def update(state, data, key, num):
        run = lambda data, key, state, lr: jax.lax.scan(lambda s, _: one(data, key, s, lr), state, None, length=num)
        if plan.num == 1:
            return run(data, key, state, None)
        # the steps are the inner loop, so that replicas one after another are each what a single run is
        mine = lambda data, key, rest, lr: run(data, key, rest.replace(step=state.step), lr)
        new, means = replicas.each(plan, mine, data, key, state.replace(step=None), lr_R,
                                   mesh=mesh if shared_out else None)
        return new.replace(step=new.step[0]), jax.tree.map(lambda mean_RN: mean_RN.swapaxes(0, 1), means)

    def placed(state, data, key, num):
        new, means = update(state, data, key, num)
        return jax.lax.with_sharding_constraint(new, place_of(experiment, new, mesh)), means

    return jax.jit(placed, static_argnums=3, donate_argnums=0)


def _grads(learner, num: int, params: PyTree, carry: PyTree, batch: PyTree, key: Array):
    """learner.grads of the batch, or the mean of those of `num` parts of it, one after another: every num-th task, so
    that each part lies on all devices."""
    if num == 1:
        return learner.grads(params, carry, batch, key)

    def part(so_far, given):
        grads, carry, means = learner.grads(params, so_far[1], *given)
        return (jax.tree.map(jax.numpy.add, so_far[0], grads), carry), means

    parts = jax.tree.map(lambda a: a.reshape(-1, num, *a.shape[1:]).swapaxes(0, 1), batch)
    zeros = jax.tree.map(jax.numpy.zeros_like, params)
    (grads, carry), means = jax.lax.scan(part, (zeros, carry), (parts, jax.random.split(key, num)))
    return jax.tree.map(lambda g: g / num, grads), carry, jax.tree.map(lambda a: a.sum(0), means)
