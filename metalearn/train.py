"""Train: one loop for every family.

  metalearn train --config=configs/gpicl.py:digits --workdir=runs/gpicl [--config.field=value ...]

A second identical command goes on from the last checkpoint, to the same bits as an uninterrupted run. With more
`train.steps` a run goes on further than planned, where its learning rate does not depend on them; that, and what else
may differ, is listed in runtime/workdir.py (MAY_CHANGE). A finished run answers with its result.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import types
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from metalearn import cli
from metalearn.eval import evaluate, headlines
from metalearn.reporting import plots
from metalearn.runtime import config as config_lib
from metalearn.runtime import experiment as experiment_lib
from metalearn.runtime import guard as guard_lib
from metalearn.runtime import loop, manifest, pretrained, replicas, sharding, signals
from metalearn.runtime import workdir as workdir_lib
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import Experiment
from metalearn.runtime.writer import Writer
from metalearn.types import Array, Mean, PyTree, TrainState
from metalearn.validate import multiple_of, require


def run(config: ConfigDict, workdir: str, quiet: bool = False, stop: signals.Noted | None = None,
        strict: bool = False) -> dict[str, Any]:
    """Trains, saves, evaluates; returns the headline numbers.

    stop     who notes signals, where that outlasts the run
    strict   a damaged newest checkpoint is an error, in the place of going on from the one before

    Raises ConfigError before anything is written or any device is used, Stopped after a signal (state saved), Failure
    where it cannot go on: a full disk, no healthy checkpoint, updates that are not finite.
    """
    workdir = os.path.abspath(workdir)
    fresh, changed = workdir_lib.check(workdir, config)
    if not fresh and not changed and (found := _finished(config, workdir)):
        cli.say(f"finished at step {config.train.steps}; results in {os.path.join(workdir, 'result.json')}")
        return found
    _check_progress(config, workdir, fresh)
    with contextlib.nullcontext(stop) if stop else signals.Noted() as stop:
        try:
            with stop.at_once():
                experiment = experiment_lib.build(config)
                if not _checkpoints(workdir).steps():  # else its parameters are there already
                    pretrained.check(config.init_from, experiment.learner.pretrained)
                mesh = sharding.make_mesh(config.train.devices)
                multiple_of("devices", mesh.size, **{"config.train.batch": config.train.batch})
            with workdir_lib.hold(workdir, config) as held:
                return _run(experiment, mesh, held, stop, quiet, strict)
        except signals.Interrupted:
            raise Stopped(stop.number, "before its first update; there is nothing to save") from None


def _run(experiment: Experiment, mesh: Mesh, held: workdir_lib.Held, stop: signals.Noted, quiet: bool,
         strict: bool) -> dict[str, Any]:
    """What one process does of a run: from where the last one stopped to the end, or to a signal."""
    began, config, workdir = time.monotonic(), experiment.config, held.path
    plan, train, checkpoints = experiment.plan, config.train, _checkpoints(workdir, config.train.keep, strict)
    attempt, unfinished = manifest.rolled_back(workdir)
    if unfinished is not None:  # killed before it had deleted what it went back from
        checkpoints.drop(after=unfinished or -1)
    with stop.at_once():
        experiment = experiment_lib.with_data(experiment, workdir)
        meta = {"config": config.to_dict(), "versions": manifest.versions(),
                "data_sha256": experiment_lib.fingerprint(experiment.task.data)}
        key_init, key_steps = replicas.split(plan, replicas.roots(plan))
        data = sharding.replicate(replicas.data(plan, experiment.task.data), mesh)
        state, found = _begin(experiment, checkpoints, data, key_init)
        _warn_of_changes(found, meta, workdir)
        state, update = sharding.replicate(state, mesh), loop.make_update(experiment, mesh)
    step = int(state.step)
    session = manifest.describe(jax.devices()[0].device_kind, mesh.size)
    manifest.add(workdir, session, step=step, **{"changed": held.changed} if held.changed else {})
    guard = guard_lib.made(experiment, found, attempt)
    key = replicas.keys(plan, key_steps, guard.attempt)
    # running: totals and counts since the last line of metrics; pending: the last call's, still on the device
    running, pending, warned, before = found.get("running", {}), None, set(), found.get("seconds", 0.0)
    writer, saved, first = Writer(workdir, step, train.steps, quiet), step if found else -1, True
    if writer.last + train.log_every <= step and not held.changed:
        cli.say(f"warning: metrics.jsonl lacks what was written from step {writer.last} to {step}")

    def save():
        nonlocal running, pending, saved, first
        if pending is not None:
            running, pending = _add(running, jax.device_get(pending)), None
        held.check()
        streaks = np.atleast_1d(jax.device_get(state.opt_state.streak))
        checkpoints.save(step, state, meta | {"running": running, "guard": guard.meta(streaks),
                                              "seconds": before + time.monotonic() - began})
        if first:
            manifest.note(workdir, saved=step)
        saved, first = step, False

    def stopped(number: int) -> Stopped:
        if saved != step:
            save()
        return Stopped(number, f"at step {step}; saved")

    while step < train.steps:
        if stop.number:
            raise stopped(stop.number)
        if train.eval_every and step and step % train.eval_every == 0:  # here, so that a resumed run makes it up
            try:
                with stop.at_once():
                    numbers = headlines(experiment, state.params, state.carry)
            except signals.Interrupted:
                raise stopped(stop.number) from None
            writer.write_history(step, numbers)
        num = min(train.steps_per_call, train.steps - step)
        state, new = update(state, data, key, num)
        step += num
        if pending is not None:  # fetched while the device is busy with the next call
            running = _add(running, jax.device_get(pending))
        pending = new
        due = lambda every, at=step: every and (at % every == 0 or at == train.steps)
        if due(train.log_every):
            running, pending = _add(running, jax.device_get(pending)), None
            held.check()
            numbers, skipped = _numbers(running), running["skipped"]
            writer.write(step, replicas.line(plan, numbers))
            running, streaks = {}, np.atleast_1d(jax.device_get(state.opt_state.streak))
            for text in _warnings(experiment, numbers, streaks):
                if text not in warned:  # once a run: the numbers themselves are in metrics.jsonl
                    cli.say(f"warning: step {step}: {text}")
                warned.add(text)
            if wrong := guard.line(list(zip(*map(np.atleast_1d, skipped), strict=True)), streaks):
                if guard.attempt:
                    raise guard_lib.Diverged(guard_lib.dump(workdir, experiment, state, guard, wrong))
                state, found = _roll_back(experiment, checkpoints, data, key_init, held, f"{wrong} at step {step}")
                state = sharding.replicate(state, mesh)
                step, running, first = int(state.step), found.get("running", {}), True
                guard = guard_lib.made(experiment, found, 1)
                key = replicas.keys(plan, key_steps, guard.attempt)
                writer.close()
                writer, saved = Writer(workdir, step, train.steps, quiet), step if found else -1
                continue
        if due(train.save_every):
            save()
    if wrong := guard_lib.whole_run(state):
        raise guard_lib.Diverged(f"{wrong}; no evaluation was made of it")
    if saved != step:
        save()
    try:
        with stop.at_once():
            headline = evaluate(experiment, state.params, state.carry, workdir, step)
    except signals.Interrupted:
        raise stopped(stop.number) from None
    held.check()
    writer.write_history(step, headline)
    writer.close()
    for row, skipped in zip(headline.get("replicas", ()), np.atleast_1d(state.opt_state.skipped), strict=False):
        row["skipped"] = int(skipped)
    plots.plot({"curves": plots.training(workdir)}, os.path.join(workdir, "plots", "training"))
    headline |= experiment_lib.sizes(experiment, state.params) | {"seconds": before + time.monotonic() - began}
    workdir_lib.write_json(os.path.join(workdir, "result.json"), cli.plain(headline))
    return headline


def _checkpoints(workdir: str, *args: Any) -> Checkpoints:
    return Checkpoints(os.path.join(workdir, "checkpoints"), *args)


def _finished(config: ConfigDict, workdir: str) -> dict[str, Any] | None:
    """The headline numbers of a run that is done."""
    with contextlib.suppress(FileNotFoundError):
        if _checkpoints(workdir).meta()["step"] == config.train.steps:
            return workdir_lib.read_result(workdir)
    return None


def _check_progress(config: ConfigDict, workdir: str, fresh: bool) -> None:
    """ConfigError where the run cannot go on from its checkpoints, before anything is written."""
    steps = _checkpoints(workdir).steps()
    require(bool(steps) or fresh or not manifest.saved(workdir), "--workdir", workdir,
            "its checkpoints are gone; begin anew in another directory")
    require(not steps or steps[-1] <= config.train.steps, "config.train.steps", config.train.steps,
            f"the run is at step {max(steps, default=0)} already")


def _begin(experiment: Experiment, checkpoints: Checkpoints, data: PyTree, key: Array,
           step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
    """(state, meta of its checkpoint): of the newest healthy one or of `step`; ({} for meta) where there is none."""
    init, config = loop.make_init(experiment), experiment.config
    if checkpoints.steps():
        return checkpoints.restore(jax.eval_shape(init, data, key), step)
    state = init(data, key)
    if config.init_from:
        parts = tuple(experiment.learner.pretrained)
        state = state.replace(params=pretrained.params(config.init_from, state.params, parts, experiment.plan))
    return state, {}


def _roll_back(experiment: Experiment, checkpoints: Checkpoints, data: PyTree, key: Array, held: workdir_lib.Held,
               wrong: str) -> tuple[TrainState, dict[str, Any]]:
    """The state of the newest checkpoint from before updates were refused, or that of the beginning; later ones go."""
    good = guard_lib.good_steps(checkpoints)[-1:]
    to = good[0] if good else 0
    cli.say(f"warning: {wrong}; going back to step {to} and on with other batches")
    held.check()
    manifest.note(held.path, rolled_back=to, saved=None)  # first: a kill from here on is made up for at the next start
    checkpoints.drop(after=to or -1)
    return _begin(experiment, checkpoints, data, key)


def _warn_of_changes(found: dict[str, Any], now: dict[str, Any], workdir: str) -> None:
    """Refuses other data than the checkpoint's, and warns of other versions."""
    require(found.get("data_sha256", now["data_sha256"]) == now["data_sha256"], "config.task", workdir,
            "its data are not those that the run was trained on so far (they have another SHA-256)")
    then = found.get("versions", now["versions"])
    other = [f"{k} {then.get(k)} -> {now['versions'].get(k)}" for k in sorted(then.keys() | now["versions"].keys())
             if then.get(k) != now["versions"].get(k)]
    if other:
        cli.say("warning: the checkpoint is of other versions, so bits may differ: " + ", ".join(other))


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


def _warnings(experiment, numbers: list[dict[str, float]], streaks: np.ndarray) -> list[str]:
    """What a person should hear about each replica's numbers and its refused updates in a row."""
    plan, found = experiment.plan, []
    for r, (mine, streak) in enumerate(zip(numbers, streaks, strict=True)):
        texts = list(experiment.learner.warn(mine))
        if plan.num > 1 and streak >= experiment.config.train.max_bad_steps:
            texts.append("its updates are not finite any more: it stands still, the others go on")
        found += [f"replica {r}: {text}" if plan.num > 1 else text for text in texts]
    return found


class Stopped(Exception):
    """A signal came; what there was to save is saved."""

    def __init__(self, number: int, where: str):
        super().__init__(f"stopped by {signals.name(number)} {where}. The same command goes on.")


class _Callable(types.ModuleType):
    """What makes `metalearn.train(...)` a call although `python -m metalearn.train` needs a module of that name."""

    def __call__(self, config: str | ConfigDict, workdir: str, overrides: Iterable[str] = (),
                 quiet: bool = True) -> dict[str, Any]:
        """`run` for a config or for `FILE[:argument]` with overrides `field=value`, as on the command line."""
        if isinstance(config, str):
            config = config_lib.load(config, overrides)
        else:
            require(not overrides, "overrides", tuple(overrides), "are of a config's name: give them to config.load")
        return run(config, workdir, quiet)


sys.modules[__name__].__class__ = _Callable


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn train")
    parser.add_argument("--config", required=True, help="FILE[:argument], e.g. configs/gpicl.py:digits")
    parser.add_argument("--workdir", required=True, help="where the run lives; reused to go on")
    parser.add_argument("--strict", action="store_true", help="do not go on from an earlier checkpoint than the newest")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    args = parser.parse()
    config = config_lib.load(args.config, args.overrides)
    with signals.Noted(last=True) as stop:
        try:
            headline = run(config, args.workdir, args.quiet, stop, args.strict)
        except Stopped as stopped:
            cli.say(str(stopped))
            return cli.EXIT_SIGNAL
        cli.print_result(headline)
        cli.say(f"next: metalearn report {args.workdir}; metalearn eval --workdir={args.workdir} --dataset=PATH")
    return 0


if __name__ == "__main__":
    cli.main(main)
