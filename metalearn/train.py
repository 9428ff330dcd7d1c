"""Train: one loop for every family.

  metalearn train --config=configs/gpicl.py:digits --workdir=runs/gpicl [--config.field=value ...]

A second identical command goes on from the last checkpoint, to the same bits as an uninterrupted run. With more
`train.steps` a run goes on further than planned, where its learning rate does not depend on them; that, and what else
may differ, is listed in runtime/workdir.py (MAY_CHANGE). A finished run answers with its result.
"""

import contextlib
import os
import sys
import time
import types
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import metalearn.runtime.experiment as experiment_lib
import metalearn.runtime.guard as guard_lib
import metalearn.runtime.workdir as workdir_lib
from metalearn import cli
from metalearn.eval import evaluate, headlines
from metalearn.reporting import plots
from metalearn.runtime import config as config_lib, hosts, loop, manifest, pretrained, replicas, sharding, signals
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.exported import is_one
from metalearn.runtime.profile import Profile
from metalearn.runtime.session import Session
from metalearn.runtime.watchdog import Watchdog
from metalearn.runtime.writer import check_wandb
from metalearn.validate import multiple_of, require


def run(config: ConfigDict, workdir: str, quiet: bool = False, stop: signals.Noted | None = None,
        strict: bool = False, watchdog: float = 0.0, profile: int = 0, wandb: bool = False) -> dict[str, Any]:
    """Trains, saves, evaluates; returns the headline numbers.

    stop      who notes signals, where that outlasts the run
    strict    a damaged newest checkpoint is an error, in the place of going on from the one before
    watchdog  see runtime/watchdog.py: it ends the process
    profile   how many updates to trace, see runtime/profile.py
    wandb     whether Weights & Biases gets the numbers too, see runtime/writer.py

    Raises ConfigError before anything is written or any device is used, Stopped after a signal (state saved), Failure
    where it cannot go on: a full disk, no healthy checkpoint, updates that are not finite.
    """
    workdir = os.path.abspath(workdir)
    if wandb:
        check_wandb()
    fresh, changed = workdir_lib.check(workdir, config)
    require(not is_one(workdir), "--workdir", workdir, "holds exported weights; another run takes them by "
            f"--config.init_from={workdir}")
    if not fresh and not changed and (found := _finished(config, workdir)):
        cli.say(f"finished at step {config.train.steps}; results in {os.path.join(workdir, 'result.json')}")
        return found
    _check_progress(config, workdir, fresh)
    with contextlib.nullcontext(stop) if stop else signals.Noted() as stop:
        try:
            with stop.at_once():
                sharding.split_cpu(config.train.devices)
                experiment = experiment_lib.build(config)
                if not _checkpoints(workdir).steps():  # else its parameters are there already
                    pretrained.check(config.init_from, experiment.learner.pretrained)
                mesh = sharding.make_mesh(config.train.devices, config.train.mesh.model)
                parts = 1 if replicas.shared_out(experiment.plan, mesh) else mesh.shape["data"]
                parts *= config.train.accumulate
                multiple_of("devices" if parts == mesh.size else "devices / train.mesh.model * train.accumulate", parts,
                            **{"config.train.batch": config.train.batch})
            hosts.agree({f"config.{k}": repr(v) for k, v in config_lib.flatten(config).items()} | manifest.versions())
            checkpoints = _checkpoints(workdir, config.train.keep, strict)
            with hosts.writable(workdir) as mine, workdir_lib.hold(mine, config) as held, checkpoints:
                with stop.at_once():
                    session = Session(experiment, mesh, held, checkpoints, quiet, wandb)
                try:
                    with Profile(os.path.join(held.path, "profile"), profile) as trace:
                        alone = jax.default_backend() == "cpu" and jax.process_count() == 1
                        return _run(session, stop, Watchdog(watchdog, alone), trace)
                except jax.errors.JaxRuntimeError as error:
                    if jax.process_count() == 1:
                        raise
                    hosts.wait_for_watch()
                    raise cli.Failure(f"another of the {jax.process_count()} processes is gone, and the run with it; "
                                      f"the same commands go on ({' '.join(str(error).split())[:150]})") from None
        except signals.Interrupted:
            raise Stopped(stop.number, "before its first update; there is nothing to save") from None


def _run(session: Session, stop: signals.Noted, watchdog: Watchdog, profile: Profile) -> dict[str, Any]:
    """The loop: from where the last process stopped to the end, or to a signal."""
    experiment, train = session.experiment, session.experiment.config.train
    update = loop.make_update(experiment, session.mesh)

    def stopped() -> Stopped:
        session.save()
        return Stopped(stop.number, f"at step {session.step}; saved")

    def at_once(function, *args):
        """function(session's experiment and parameters, ...), which a signal ends where it stands."""
        try:
            # one of several cannot leave the others: it answers where all do
            with stop.at_once() if jax.process_count() == 1 else contextlib.nullcontext():
                state = sharding.local(session.state, session.mesh)
                return function(experiment, state.params, state.carry, *args)
        except signals.Interrupted:
            raise stopped() from None

    asked = hosts.largest(stop.number)
    while session.step < train.steps:
        if asked:
            stop.number = asked
            raise stopped()
        if train.eval_every and session.step and session.step % train.eval_every == 0:
            session.writer.write_history(session.step, at_once(headlines))  # here, so that a resumed run makes it up
        num = min(train.steps_per_call, train.steps - session.step)
        with watchdog.call(num), profile.call(num, lambda: session.state):
            session.state, means = update(session.state, session.data, session.key, num)
            session.step += num
            session.take(means)
            wrong = session.line() if session.due(train.log_every) else ""
            asked = hosts.largest(stop.number)
        if wrong:
            session.roll_back(wrong)
        elif session.due(train.save_every):
            session.save(wait=False)
    if wrong := guard_lib.whole_run(session.state):
        raise guard_lib.Diverged(f"{wrong}; no evaluation was made of it")
    session.save()
    return _end(session, at_once(evaluate, session.held.path, session.step))


def _end(session: Session, headline: dict[str, Any]) -> dict[str, Any]:
    """Writes the last evaluation's numbers where they belong, and returns them with the run's sizes and seconds."""
    session.held.check()
    session.writer.write_history(session.step, headline)
    session.writer.close()
    for row, count in zip(headline.get("replicas", ()), np.atleast_1d(session.state.opt_state.skipped), strict=False):
        row["skipped"] = int(count)
    plots.plot({"curves": plots.training(session.held.path)}, os.path.join(session.held.path, "plots", "training"))
    seconds = time.monotonic() - session.began
    headline |= experiment_lib.sizes(session.experiment, session.state.params) | {"seconds": seconds}
    workdir_lib.write_json(os.path.join(session.held.path, "result.json"), cli.plain(headline))
    return headline


def _checkpoints(workdir: str, *args: Any) -> Checkpoints:
    return Checkpoints(os.path.join(workdir, "checkpoints"), *args)


def _finished(config: ConfigDict, workdir: str) -> dict[str, Any] | None:
    """The headline numbers of a run that is done."""
    with contextlib.suppress(FileNotFoundError):
        if _checkpoints(workdir).meta()["step"] == config.train.steps:
            return workdir_lib.read_json(os.path.join(workdir, "result.json"))
    return None


def _check_progress(config: ConfigDict, workdir: str, fresh: bool) -> None:
    """ConfigError where the run cannot go on from its checkpoints, before anything is written."""
    steps = _checkpoints(workdir).steps()
    require(bool(steps) or fresh or not manifest.saved(workdir), "--workdir", workdir,
            "its checkpoints are gone; begin anew in another directory")
    require(not steps or steps[-1] <= config.train.steps, "config.train.steps", config.train.steps,
            f"the run is at step {max(steps, default=0)} already")


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
    parser.add_argument("--watchdog", type=float, default=1000.0, metavar="N", help="end, with all threads' stacks, "
                        "where a call takes a minute and N times the median, or a CPU idles for one (1000; 0: never)")
    parser.add_argument("--profile", type=int, nargs="?", const=20, default=0, metavar="N", help="trace N updates "
                        "(20) after the first calls, for xprof, into WORKDIR/profile")
    parser.add_argument("--wandb", action="store_true", help="numbers go to Weights & Biases too "
                        "(WANDB_MODE=offline: to its files)")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    parser.add_argument("--processes", type=int, default=1, help="how many train this run together, each started with "
                        "the same command but for --process")
    parser.add_argument("--process", type=int, default=0, help="which of them this is, from 0")
    parser.add_argument("--coordinator", default="", help="HOST:PORT of process 0")
    parser.add_argument("--join_timeout", type=int, default=100, help="seconds until an absent or silent one is missed")
    args = parser.parse()
    require(args.watchdog >= 0, "--watchdog", args.watchdog, "must be 0 or above")
    require(args.profile >= 0, "--profile", args.profile, "must be 0 or above")
    config = config_lib.load(args.config, args.overrides)
    hosts.join(args.coordinator, args.processes, args.process, args.join_timeout)
    with signals.Noted(last=True) as stop:
        try:
            headline = run(config, args.workdir, args.quiet, stop, args.strict, args.watchdog, args.profile, args.wandb)
        except Stopped as stopped:
            cli.say(str(stopped))
            return cli.EXIT_SIGNAL
        if args.process:
            return 0
        cli.print_result(headline)
        cli.say(f"next: metalearn report {args.workdir}; metalearn eval --workdir={args.workdir}")
    return 0


if __name__ == "__main__":
    cli.main(main)
