"""Train: one loop for every family.

  python -m metalearn.train --config=configs/gpicl.py:digits --workdir=runs/gpicl [--config.field=value ...]

A second identical command goes on from the last checkpoint, to the same bits as an uninterrupted run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from metalearn import cli
from metalearn.eval import evaluate
from metalearn.runtime import config as config_lib
from metalearn.runtime import experiment as experiment_lib
from metalearn.runtime import loop, optimiser, sharding
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
        checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"), config.train.keep)
        meta = {"config": config.to_dict(), "versions": workdir_lib.versions()}
        key_init, key_steps = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
        data = sharding.replicate(experiment.task.data, mesh)
        init, running = loop.make_init(experiment), {}  # running: totals and counts since the last line of metrics
        if checkpoints.steps():
            state, found = checkpoints.restore(jax.eval_shape(init, data, key_init))
            running = found.get("running", {})
        else:
            state = init(data, key_init)
            if config.init_from:
                parts = tuple(experiment.learner.pretrained)
                state = state.replace(params=_params_from(config.init_from, state.params, parts))
        state = sharding.replicate(state, mesh)
        update = loop.make_update(experiment, mesh)

        train, step = config.train, int(state.step)
        writer = Writer(workdir, step, train.steps, quiet)
        pending, warned = None, set()
        saved = step if checkpoints.steps() else -1
        while step < train.steps:
            if train.eval_every and step and step % train.eval_every == 0:  # here, so that a resumed run makes it up
                numbers = {}
                for evaluator in experiment.evaluators.values():
                    numbers |= evaluator.run(state.params, state.carry)["headline"]
                writer.write_history(step, numbers)
            num = min(train.steps_per_call, train.steps - step)
            state, new = update(state, data, key_steps, num)
            step += num
            if pending is not None:  # fetched while the device is busy with the next call
                running = _add(running, jax.device_get(pending))
            pending = new
            due = lambda every, at=step: every and (at % every == 0 or at == train.steps)
            if due(train.log_every):
                running, pending = _add(running, jax.device_get(pending)), None
                numbers = {k: total / max(count, 1e-12) for k, (total, count) in running.items()}
                writer.write(step, numbers)
                for text in experiment.learner.warn(numbers):
                    if text not in warned:  # once a run: the numbers themselves are in metrics.jsonl
                        print(f"warning: step {step}: {text}", file=sys.stderr)
                    warned.add(text)
                running = {}
                streak = int(state.opt_state.streak)
                if streak >= train.max_bad_steps:
                    raise RuntimeError(f"{streak} updates in a row were not finite at step {step}; the last "
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
        headline |= experiment_lib.sizes(experiment, state.params) | {"seconds": time.monotonic() - began}
        workdir_lib.write_json(os.path.join(workdir, "result.json"), cli.plain(headline))
        return headline


def _add(running: dict[str, tuple[float, float]], means: dict[str, Mean]) -> dict[str, tuple[float, float]]:
    """{name: (total, count)} with one more call's means, stacked over its steps, in float64."""
    add = lambda mean, old: tuple(o + float(np.sum(x, dtype=np.float64))
                                  for o, x in zip(old, (mean.total, mean.count), strict=True))
    return {k: add(mean, running.get(k, (0.0, 0.0))) for k, mean in means.items()}


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


def _params_from(source: str, template, parts: tuple[str, ...]):
    """`template` with parameters of another run's newest checkpoint: `WORKDIR`, or `WORKDIR::REGEX` for the leaves
    whose path matches. Without a pattern, the learner's `pretrained` parts, or everything when it names none.

    Every leaf that is asked for must be there with its shape.
    """
    workdir, _, pattern = source.partition("::")
    pattern = pattern or "|".join(f"^{part}/" for part in parts)
    chosen = optimiser.label(template, wanted=pattern)
    asked = jax.tree.map(lambda leaf, name: leaf if name == "wanted" else None, template, chosen)
    require(bool(jax.tree.leaves(asked)), "config.init_from", source, f"no parameter's path matches {pattern}")
    found, _ = Checkpoints(os.path.join(workdir, "checkpoints")).restore({"params": asked})
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
