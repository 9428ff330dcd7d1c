"""Updates that are refused again and again (see optimiser.skip_nonfinite): one roll-back, then a stop to be replayed.

A run counts as diverging when `train.max_bad_steps` updates in a row were refused, or so many in a stretch of lines of
metrics in each of which a quarter were. It then goes back, once, to its newest checkpoint from before that, and on
with other batches: the very same ones would end in the very same way. When it diverges again it stops, and leaves in
diverged/ its state and what the refused update was made of.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.cli import Failure, plain
from metalearn.runtime import loop, replicas, sharding, workdir as workdir_lib
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import Experiment
from metalearn.types import PyTree, TrainState, named_leaves

SHARE = 0.25  # of a line's updates; fewer refused are an accident of some batches
FOLDER = "diverged"


class Diverged(Failure):
    """Too many updates were not finite."""


@dataclasses.dataclass
class Guard:
    """What is remembered of refused updates, each replica's own; `meta` of checkpoints holds it.

    refused   refused in the stretch of lines up to now that had SHARE of them
    attempt   roll-backs so far: which batches are drawn
    """

    limit: int
    refused: list[int]
    attempt: int = 0

    def line(self, skipped: Sequence[tuple[float, float]], streaks: np.ndarray) -> str:
        """Takes in one line's (refused updates, updates) of each replica and the refused in a row at its end; says what
        is wrong, '' for nothing. A run of several replicas goes on as long as one of them learns."""
        self.refused = [old + int(total) if total >= SHARE * count else 0
                        for old, (total, count) in zip(self.refused, skipped, strict=True)]
        if min(streaks) >= self.limit:
            return f"{min(streaks)} updates in a row were not finite"
        if min(self.refused) >= self.limit:
            return f"{min(self.refused)} updates were not finite of late"
        return ""

    def meta(self, streaks: np.ndarray) -> dict[str, Any]:
        """What a checkpoint keeps, with the refused in a row at that moment."""
        return {"refused": self.refused, "attempt": self.attempt, "streaks": streaks.tolist()}


def made(experiment: Experiment, meta: dict[str, Any], rolled_back: int) -> Guard:
    """As a checkpoint's `meta` left it, after so many roll-backs by the manifest."""
    kept = meta.get("guard", {})
    return Guard(experiment.config.train.max_bad_steps, list(kept.get("refused", [0] * experiment.plan.num)),
                 max(kept.get("attempt", 0), rolled_back))


def good_steps(checkpoints: Checkpoints) -> list[int]:
    """Steps saved while no update was being refused."""
    kept = {step: checkpoints.meta(step).get("guard", {}) for step in checkpoints.steps()}
    return [step for step, guard in kept.items() if not any((*guard.get("refused", ()), *guard.get("streaks", ())))]


def whole_run(state: TrainState) -> str:
    """What is wrong with a run at its end, '' for nothing: half of all updates refused is no training."""
    skipped, steps = int(np.min(state.opt_state.skipped)), int(state.step)
    return f"{skipped} of {steps} updates were not finite" if 2 * skipped >= steps else ""


def dump(workdir: str, experiment: Experiment, state: TrainState, guard: Guard, why: str) -> str:
    """Leaves diverged/ in the work directory; returns the line to stop with."""
    state = jax.device_get(state)
    step = int(state.step)
    folder = os.path.join(workdir, FOLDER)
    meta = {"config": experiment.config.to_dict(), "guard": guard.meta(np.atleast_1d(state.opt_state.streak))}
    Checkpoints(folder, keep=1).save(step, state, meta, force=True)
    workdir_lib.write_json(os.path.join(folder, "report.json"), plain(replay(workdir, experiment)))
    return (f"{why} at step {step}, after one roll-back; the last checkpoint is kept. {folder}/report.json says what "
            f"the update was made of; metalearn checkpoint replay {workdir} makes it again")


def replay(workdir: str, experiment: Experiment, most: int = 1000) -> dict[str, Any]:
    """Makes the refused update of diverged/ again: which step, key and batch it was, and what in it is not finite.

    Each replica that diverged has its own: the first is taken. Failure when no update is refused within `most` steps.
    """
    checkpoints, plan = Checkpoints(os.path.join(workdir, FOLDER)), experiment.plan
    key_init, key_steps = replicas.split(plan, replicas.roots(plan))
    data = replicas.data(plan, experiment.task.data)
    state, meta = checkpoints.restore(jax.eval_shape(loop.make_init(experiment), data, key_init))
    key = replicas.keys(plan, key_steps, meta["guard"]["attempt"])
    r = int(np.argmax(state.opt_state.streak))
    first = _rewound(state, np.atleast_1d(state.opt_state.streak)[r])
    update = loop.make_update(experiment, sharding.make_mesh(1))
    state = jax.tree.map(jnp.asarray, first)
    for _ in range(most):
        before = jax.device_get(state)
        state, means = update(state, data, key, 1)
        skipped = np.atleast_1d(np.asarray(means["skipped"].total)[0])[r]
        if skipped:
            return _report(experiment, before, replicas.task_of(plan, experiment.task, r).data, key, r, means)
    raise Failure(f"none of {most} updates from step {int(first.step)} on was refused: this is not what diverged")


def _rewound(state: TrainState, streak: np.int32) -> TrainState:
    """The state before the streak: refused updates moved nothing but the counts."""
    less = lambda count: count - np.minimum(streak, count)
    counts = state.opt_state
    return state.replace(step=state.step - streak, opt_state=counts._replace(skipped=less(counts.skipped),
                                                                             streak=less(counts.streak)))


def _report(experiment: Experiment, before: TrainState, data: PyTree, key, r: int, means) -> dict[str, Any]:
    plan = experiment.plan
    mine = replicas.state_of(plan, before, r)
    key = key if plan.num == 1 else key[r]
    batch, key_learner = jax.jit(lambda state: loop.draw(experiment, data, key, state))(mine)
    grads, _, _ = jax.jit(experiment.learner.grads)(mine.params, mine.carry, batch, key_learner)
    numbers = {k: np.atleast_1d(np.asarray(m.total)[0] / np.maximum(np.asarray(m.count)[0], 1e-12))[r].item()
               for k, m in means.items()}
    ids = {name: np.asarray(getattr(batch, name)) for name in ("task_B", "index_BT") if hasattr(batch, name)}
    return {"step": int(before.step), "replica": r, "seed": plan.seeds[r],
            "key": jax.random.key_data(key), "key_learner": jax.random.key_data(key_learner), "batch": ids,
            "numbers": {k: repr(v) for k, v in numbers.items()}, "not_finite": {
                "parameters": _broken(mine.params), "batch": _broken(batch), "gradients": _broken(grads)}}


def _broken(tree: PyTree) -> dict[str, int]:
    """{leaf: how many entries are not finite}, of those that have any."""
    counts = {name: int((~np.isfinite(np.asarray(leaf, np.float64))).sum()) for name, leaf in named_leaves(tree).items()
              if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)}
    return {name: count for name, count in counts.items() if count}
