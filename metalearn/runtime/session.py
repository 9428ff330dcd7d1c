"""One process's part of a run: from where the last one stopped to the end, or to a signal. The loop is train.py's."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from metalearn import cli
from metalearn.runtime import guard as guard_lib, hosts, loop, manifest, pretrained, replicas, sharding, stored, workdir
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import Experiment, fingerprint, with_data
from metalearn.runtime.writer import Writer
from metalearn.types import Mean, TrainState
from metalearn.validate import require


class Session:
    """What an update takes (`data`, `key`), what it gives (`state`, at `step`), and what is kept of it.

    running   {name: (total, count)} since the last line of metrics
    pending   the last call's means, still on the device
    wandb     the config, where Weights & Biases is to have the numbers
    saved     the newest checkpoint's step, -1 where there is none

    Raises ConfigError where the data are not those that the run was trained on, Failure without a healthy checkpoint.
    """

    def __init__(self, experiment: Experiment, mesh: Mesh, held: workdir.Held, checkpoints: Checkpoints, quiet: bool,
                 wandb: bool = False):
        self.began = time.monotonic()  # less the seconds of sessions before, as far as checkpoints tell
        self.experiment = experiment = with_data(experiment, held.path)
        self.mesh, self.held, self.checkpoints, self.quiet = mesh, held, checkpoints, quiet
        self.wandb = cli.plain(experiment.config.to_dict()) if wandb and hosts.first() else None
        plan, self.warned = experiment.plan, set()
        attempt, unfinished = manifest.rolled_back(held.path)
        attempt = hosts.largest(attempt)  # the first process alone has what was written of earlier sessions
        if unfinished is not None:  # killed before it had deleted what it went back from
            checkpoints.drop(after=unfinished or -1)
        self.meta = {"config": experiment.config.to_dict(), "versions": manifest.versions(),
                     "data_sha256": fingerprint(experiment.task.data)}
        if hosts.first():
            stored.save(held.path, experiment.task, experiment.config.train.batch)
        self._key_init, self._key_steps = replicas.split(plan, replicas.roots(plan))
        self.data = sharding.replicate(replicas.data(plan, experiment.task.data), mesh)
        self.began -= self._begin(attempt).get("seconds", 0.0)
        manifest.add(held.path, manifest.describe(jax.devices()[0].device_kind, mesh.size), step=self.step,
                     **{"changed": held.changed} if held.changed else {})
        if hosts.first() and self.writer.last + experiment.config.train.log_every <= self.step and not held.changed:
            cli.say(f"warning: metrics.jsonl lacks what was written from step {self.writer.last} to {self.step}")

    def _begin(self, attempt: int) -> dict[str, Any]:
        """Goes to the newest healthy checkpoint, or to the beginning; returns the checkpoint's meta, {} of none."""
        experiment, config, plan = self.experiment, self.experiment.config, self.experiment.plan
        found: dict[str, Any] = {}
        init: Callable[..., Any] = loop.make_init(experiment)
        if hosts.largest(len(self.checkpoints.steps())):
            shapes = jax.eval_shape(init, self.data, self._key_init)
            state, found = self.checkpoints.restore(shapes) if hosts.first() else (shapes, {"step": -1})
            step = hosts.largest(found["step"])
            if not hosts.first():  # the same, whatever is damaged
                state, found = self.checkpoints.restore(shapes, step)
            _warn_of_changes(found, self.meta, self.held.path)
        else:
            state = init(self.data, self._key_init)
            if config.init_from:
                parts = tuple(experiment.learner.pretrained)
                state = state.replace(params=pretrained.params(config.init_from, state.params, parts, plan))
        self.state: TrainState = sharding.place(state, loop.place_of(experiment, state, self.mesh))
        if config.train.mesh.params != "replicated" or self.mesh.shape["model"] > 1:
            cli.say(f"{sharding.bytes_per_device(self.state):,} bytes of state on each of {self.mesh.size} devices")
        self.step = int(state.step)
        self.saved = self.step if found else -1
        self.running, self.pending, self._first = found.get("running", {}), None, True
        self.guard = guard_lib.made(experiment, found, attempt)
        self.key = replicas.keys(plan, self._key_steps, self.guard.attempt)
        self.writer = Writer(self.held.path, self.step, config.train.steps, self.quiet or not hosts.first(),
                             self.wandb)
        return found

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and at the last, is to be done now."""
        return bool(every) and (self.step % every == 0 or self.step == self.experiment.config.train.steps)

    def take(self, means: dict[str, Mean] | None = None) -> None:
        """Adds the last call's means to `running`, and keeps `means`, the next call's, for the next time: so they are
        fetched while the device is busy with that call."""
        if self.pending is not None:
            self.running = _add(self.running, jax.device_get(self.pending))
        self.pending = means

    def line(self) -> str:
        """Writes a line of metrics, and warnings; what is wrong with the updates since the last, '' for nothing."""
        self.take()
        self.held.check()
        numbers, skipped, streaks = _numbers(self.running), self.running["skipped"], self._streaks()
        self.writer.write(self.step, replicas.line(self.experiment.plan, numbers))
        self.running = {}
        for text in _warnings(self.experiment, numbers, streaks):
            if text not in self.warned:  # once a run: the numbers themselves are in metrics.jsonl
                cli.say(f"warning: step {self.step}: {text}")
            self.warned.add(text)
        return self.guard.line(list(zip(*map(np.atleast_1d, skipped), strict=True)), streaks)

    def _streaks(self) -> np.ndarray:
        return np.atleast_1d(jax.device_get(self.state.opt_state.streak))

    def save(self, wait: bool = True) -> None:
        """A checkpoint of this step, unless there is one; without `wait` it is written while the run goes on."""
        self.take()
        if self.saved != self.step:
            self.held.check()
            meta = self.meta | {"running": self.running, "guard": self.guard.meta(self._streaks()),
                                "seconds": time.monotonic() - self.began}
            state = sharding.local(self.state, self.mesh)
            if hosts.first():  # the manifest tells of a session's first checkpoint, so that one is waited for
                self.checkpoints.save(self.step, state, meta, wait=wait or self._first)
            self.saved = self.step
            if self._first:
                manifest.note(self.held.path, saved=self.step)
            self._first = False
        if wait:
            self.checkpoints.wait()

    def roll_back(self, wrong: str) -> None:
        """To the newest checkpoint from before updates were refused, or to the beginning, and on with other batches;
        the second time it is Diverged."""
        path = self.held.path
        if self.guard.attempt:
            raise guard_lib.Diverged(guard_lib.dump(path, self.experiment, self.state, self.guard, wrong))
        self.checkpoints.wait()
        to = max(guard_lib.good_steps(self.checkpoints), default=0)
        cli.say(f"warning: {wrong} at step {self.step}; going back to step {to} and on with other batches")
        self.held.check()
        manifest.note(path, rolled_back=to, saved=None)  # first: a kill from here on is made up for at the next start
        if hosts.first():
            self.checkpoints.drop(after=to or -1)
        self.writer.close()
        self._begin(1)


def _warn_of_changes(found: dict[str, Any], now: dict[str, Any], path: str) -> None:
    """Refuses other data than the checkpoint's, and warns of other versions."""
    require(found.get("data_sha256", now["data_sha256"]) == now["data_sha256"], "config.task", path,
            "its data are not those that the run was trained on so far (they have another SHA-256)")
    then = found.get("versions", now["versions"])
    if other := ", ".join(f"{k} {then.get(k)} -> {v}" for k, v in now["versions"].items() if then.get(k) != v):
        cli.say(f"warning: the checkpoint is of other versions, so bits may differ: {other}")


def _add(running: dict[str, tuple], means: dict[str, Mean]) -> dict[str, tuple]:
    """{name: (total, count)} with one more call's means, stacked over its steps, in float64; lists of R where there
    are replicas."""
    add = lambda mean, old: tuple((np.asarray(o) + np.sum(x, 0, dtype=np.float64)).tolist()
                                  for o, x in zip(old, (mean.total, mean.count), strict=True))
    return {k: add(mean, running.get(k, (0.0, 0.0))) for k, mean in means.items()}


def _numbers(running: dict[str, tuple]) -> list[dict[str, float]]:
    """Each replica's means out of `running`."""
    of = {k: np.atleast_1d(np.asarray(total) / np.maximum(count, 1e-12)).tolist()
          for k, (total, count) in running.items()}
    return [dict(zip(of, values, strict=True)) for values in zip(*of.values(), strict=True)]


def _warnings(experiment: Experiment, numbers: list[dict[str, float]], streaks: np.ndarray) -> list[str]:
    """What a person should hear about each replica's numbers and its refused updates in a row."""
    plan, found = experiment.plan, []
    for r, (mine, streak) in enumerate(zip(numbers, streaks, strict=True)):
        texts = list(experiment.learner.warn(mine))
        if plan.num > 1 and streak >= experiment.config.train.max_bad_steps:
            texts.append("its updates are not finite any more: it stands still, the others go on")
        found += [f"replica {r}: {text}" if plan.num > 1 else text for text in texts]
    return found


