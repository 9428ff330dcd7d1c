"""The two jitted programs of a run: how its state begins, and one update of it. One loop for every family."""

from __future__ import annotations

import jax
import optax

from metalearn.runtime import sharding
from metalearn.runtime.experiment import Experiment
from metalearn.types import Mean, TrainState


def make_init(experiment: Experiment):
    """init(data, key) -> TrainState; `key` alone decides the parameters."""

    def init(data, key):
        key_batch, key_params = jax.random.split(key)
        batch = experiment.task.sample(data, key_batch, experiment.task.splits[0], experiment.config.train.batch)
        params, carry = experiment.learner.init(key_params, batch)
        state = TrainState(jax.numpy.zeros((), "int32"), params, experiment.tx.init(params), carry)
        # a weakly typed leaf (made of a bare Python number) is strong after one update, and the program compiles again
        strong = lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype) if leaf.weak_type else leaf
        return jax.tree.map(strong, state)

    return jax.jit(init)


def make_update(experiment: Experiment, mesh: jax.sharding.Mesh):
    """update(state, data, key, num) -> (state, means stacked over `num` steps): one jitted program, state donated.

    The batch of step n is drawn inside, from `fold_in(key, n)`: there is no iterator to save.
    """
    task, learner, tx = experiment.task, experiment.learner, experiment.tx

    def one(data, key, state: TrainState):
        index, key_learner = state.step, jax.random.split(jax.random.fold_in(key, state.step))[1]
        if learner.pace:  # a refused update leaves its batch behind, else the same batch would be refused for ever
            data, index = learner.pace(data, state.carry)
            index = index + state.opt_state.skipped
        key_batch = jax.random.split(jax.random.fold_in(key, index))[0]
        batch = task.sample(data, key_batch, task.splits[0], experiment.config.train.batch)
        batch = sharding.split_batch(batch, mesh)
        grads, carry, means = learner.grads(state.params, state.carry, batch, key_learner)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        good = opt_state.streak == 0
        carry = jax.tree.map(lambda new, old: jax.numpy.where(good, new, old), carry, state.carry)
        means = means | {"grad_norm": Mean.of(optax.global_norm(grads)), "skipped": Mean.of(1.0 - good)}
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, carry), means

    def update(state, data, key, num):
        return jax.lax.scan(lambda s, _: one(data, key, s), state, None, length=num)

    return jax.jit(update, static_argnums=3, donate_argnums=0)
