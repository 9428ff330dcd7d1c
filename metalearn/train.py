"""Train: one loop for every family.

  python -m metalearn.train --config=configs/gpicl.py:digits --workdir=runs/gpicl [--config.field=value ...]

A second identical command goes on from the last checkpoint, to the same bits as an uninterrupted run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from metalearn import cli
from metalearn.eval import evaluate, headlines
from metalearn.runtime import config as config_lib
from metalearn.runtime import experiment as experiment_lib
from metalearn.runtime import loop, optimiser, replicas, sharding
from metalearn.runtime import workdir as workdir_lib
from metalearn.runtime.checkpoint import CheckpointError, Checkpoints
from metalearn.runtime.writer import Writer
from metalearn.types import Mean
from metalearn.validate import multiple_of, require


def run(config: ConfigDict, workdir: str, quiet: bool = False) -> dict[str, Any]:
    """Trains, saves, evaluates; returns the headline numbers.

    Raises ConfigError before anything is written or any device is used, Stopped after a signal (state saved).
    """
    began = time.monotonic()
    workdir_lib.check(os.path.abspath(workdir), config)
    experiment = experiment_lib.build(config)
    if not Checkpoints(os.path.join(workdir, "checkpoints")).steps():  # a resumed run has its parameters already
        _check_source(config.init_from, experiment.learner.pretrained)
    mesh = sharding.make_mesh(config.train.devices)
    multiple_of("devices", mesh.size, **{"config.train.batch": config.train.batch})

    with workdir_lib.hold(workdir, config) as workdir, _signals() as stop:
        workdir_lib.write_json(os.path.join(workdir, "manifest.json"),
                               workdir_lib.manifest(jax.devices()[0].device_kind, mesh.size))
        experiment = experiment_lib.with_data(experiment, workdir)
        checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"), config.train.keep)
        meta = {"config": config.to_dict(), "versions": workdir_lib.versions()}
        plan = experiment.plan
        key_init, key_steps = replicas.split(plan, replicas.roots(plan))
        data = sharding.replicate(replicas.data(plan, experiment.task.data), mesh)
        init, running = loop.make_init(experiment), {}  # running: totals and counts since the last line of metrics
        if checkpoints.steps():
            state, found = checkpoints.restore(jax.eval_shape(init, data, key_init))
            running = found.get("running", {})
        else:
            state = init(data, key_init)
            if config.init_from:
                parts = tuple(experiment.learner.pretrained)
                state = state.replace(params=_params_from(config.init_from, state.params, parts, plan))
        state = sharding.replicate(state, mesh)
        update = loop.make_update(experiment, mesh)

        train, step = config.train, int(state.step)
        writer = Writer(workdir, step, train.steps, quiet)
        pending, warned = None, set()
        saved = step if checkpoints.steps() else -1
        while step < train.steps:
            if train.eval_every and step and step % train.eval_every == 0:  # here, so that a resumed run makes it up
                writer.write_history(step, headlines(experiment, state.params, state.carry))
            num = min(train.steps_per_call, train.steps - step)
            state, new = update(state, data, key_steps, num)
            step += num
            if pending is not None:  # fetched while the device is busy with the next call
                running = _add(running, jax.device_get(pending))
            pending = new
            due = lambda every, at=step: every and (at % every == 0 or at == train.steps)
            if due(train.log_every):
                running, pending = _add(running, jax.device_get(pending)), None
                numbers = _numbers(running)
                writer.write(step, replicas.line(plan, numbers))
                running, streaks = {}, np.atleast_1d(jax.device_get(state.opt_state.streak))
                for text in _warnings(experiment, numbers, streaks):
                    if text not in warned:  # once a run: the numbers themselves are in metrics.jsonl
                        print(f"warning: step {step}: {text}", file=sys.stderr)
                    warned.add(text)
                if streaks.min() >= train.max_bad_steps:  # of several replicas, those that still learn go on
                    raise RuntimeError(f"{streaks.min()} updates in a row were not finite at step {step}; the last "
                                       f"checkpoint ({max(saved, 0)}) is kept")
            number = stop.signal  # read once: it may come while we save
            if due(train.save_every) or number:
                if pending is not None:
                    running, pending = _add(running, jax.device_get(pending)), None
                checkpoints.save(step, state, meta | {"running": running})
                saved = step
            if number and step < train.steps:
                raise Stopped(number, step)
        if saved != step:
            checkpoints.save(step, state, meta)
        headline = evaluate(experiment, state.params, state.carry, workdir)
        writer.write_history(step, headline)
        writer.close()
        for row, skipped in zip(headline.get("replicas", ()), np.atleast_1d(state.opt_state.skipped), strict=False):
            row["skipped"] = int(skipped)
        headline |= experiment_lib.sizes(experiment, state.params) | {"seconds": time.monotonic() - began}
        workdir_lib.write_json(os.path.join(workdir, "result.json"), cli.plain(headline))
        return headline


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


def _check_source(init_from: str, pretrained) -> None:
    """Whether `init_from` can give what the learner needs from another run, before anything is written."""
    need, source = ", ".join(pretrained), init_from.partition("::")[0]
    require(bool(source) or not need, "config.init_from", "", f"name the work directory that {need} comes from")
    if not source:
        return
    steps = Checkpoints(os.path.join(source, "checkpoints")).steps()
    require(bool(steps), "config.init_from", source, "holds no checkpoint")
    trained = config_lib.flatten(workdir_lib.read_config(source))
    for field, value in (pair for wanted in pretrained.values() for pair in wanted.items()):
        require(trained.get(field) == value, "config.init_from", source,
                f"was trained with {field}={trained.get(field)!r}; this config needs {value!r}")


def _params_from(source: str, template, parts: tuple[str, ...], plan: replicas.Plan):
    """`template` with parameters of another run's newest checkpoint: `WORKDIR`, or `WORKDIR::REGEX` for the leaves
    whose path matches. Without a pattern, the learner's `pretrained` parts, or everything when it names none.

    Every leaf that is asked for must be there with its shape. Each replica takes from the same replica of that run, or
    all of them from its only one.
    """
    workdir, _, pattern = source.partition("::")
    pattern = pattern or "|".join(f"^{part}/" for part in parts)
    chosen = optimiser.label(template, wanted=pattern)
    asked = jax.tree.map(lambda leaf, name: leaf if name == "wanted" else None, template, chosen)
    require(bool(jax.tree.leaves(asked)), "config.init_from", source, f"no parameter's path matches {pattern}")
    spread = plan.num > 1 and workdir_lib.read_config(workdir).replicas.num == 1
    if spread:
        asked = jax.eval_shape(lambda tree: replicas.one(plan, tree, 0), asked)
    found, _ = Checkpoints(os.path.join(workdir, "checkpoints")).restore({"params": asked})
    if spread:
        found = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (plan.num, *leaf.shape)), found)
    return jax.tree.map(lambda leaf, new: leaf if new is None else new, template, found["params"],
                        is_leaf=lambda leaf: leaf is None)


class Stopped(Exception):
    """A signal came; the state of `step` is saved."""

    def __init__(self, number: int, step: int):
        self.step = step
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}; saved. The same command goes on.")


class _signals:
    """Notes SIGTERM, SIGINT and SIGUSR1 instead of dying, so that the loop can save first."""

    def __enter__(self):
        self.signal, self._old = 0, {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread (a notebook's worker): then signals keep their meaning
                break
        return self

    def _note(self, number, frame):
        self.signal = number

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


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
    parser = cli.Parser(__doc__, prog="python -m metalearn.train")
    parser.add_argument("--config", required=True, help="FILE[:argument], e.g. configs/gpicl.py:digits")
    parser.add_argument("--workdir", required=True, help="where the run lives; reused to go on")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    args = parser.parse()
    config = config_lib.load(args.config, args.overrides)
    try:
        headline = run(config, args.workdir, args.quiet)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return cli.EXIT_SIGNAL
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    cli.print_result(headline)
    return 0


if __name__ == "__main__":
    cli.main(main)
