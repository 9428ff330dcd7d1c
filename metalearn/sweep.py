"""Run a config's sweep: every combination that its `sweep()` yields, each in a work directory of its own.

  metalearn sweep --config=configs/gpicl.py:phases --out=runs/phases [--jobs=2] [--on=local]

  --on=print   one train command per line          --on=table   the table of what has finished; runs nothing
  --on=local   here, `--jobs` at a time (default: one per core, or one at a time with an accelerator)
  --on=replicas  as local, with runs that one program can vary (see runtime/replicas.py) in one program
  --on=slurm   submitted by launch/slurm.py, with --sbatch="--time=2:00:00 --gres=gpu:1" for sbatch

The same command again skips what was done by this very config and goes on with the rest. A signal is handed on to the
runs, which save, and ends the sweep with exit code 75. One sweep at a time has its --out.

`sweep()` yields dicts of dotted overrides; for the launcher are `_label` (unique: directories are called by it, tables
find rows by it), `_stage` (lower ones finish first) and `_config` (another FILE:argument for this run). In a value
'{dir}' is the sweep's directory, '{run:LABEL}' that of another run. The config's SUMMARY, or SUMMARY[argument], names
the function beside it that makes one table, figure and RESULT line of the runs: "tables.fewshot.learners".
"""

import concurrent.futures
import importlib
import inspect
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax

from metalearn import cli, lookup
from metalearn.reporting import plots, tables
from metalearn.reporting.runs import Run
from metalearn.runtime import config as config_lib, signals, workdir as workdir_lib
from metalearn.validate import ConfigError, require


def expand(spec: str, out: str) -> list[dict]:
    """[{stage, label, name, workdir, overrides, config, command}, ...] of the config's sweep, every config loaded; the
    name is that of the directory."""
    module, arg = _module(spec)
    require(hasattr(module, "sweep"), "--config", spec, "has no sweep(): run it with train")
    combinations = list(module.sweep(arg) if arg else module.sweep())
    labels = [overrides.get("_label", "") for overrides in combinations]
    require(all(labels) and len(set(labels)) == len(labels), "_label", labels, "each run of a sweep() needs its own")
    names = {label: f"{i:03d}-{re.sub(r'[^A-Za-z0-9._]+', '-', label).strip('-')}" for i, label in enumerate(labels)}

    def place(found: re.Match) -> str:
        require(found[1] in names, "{run:...}", found[1], "must be one of " + ", ".join(names))
        return os.path.join(out, names[found[1]])

    def placed(value):
        return re.sub(r"\{run:([^}]*)\}", place, value.replace("{dir}", out)) if isinstance(value, str) else value

    runs = []
    for label, overrides in zip(labels, combinations, strict=True):
        overrides = {k: placed(v) for k, v in overrides.items() if k != "_label"}
        stage, config = overrides.pop("_stage", 0), config_lib.find(overrides.pop("_config", spec))
        config = ":".join(filter(None, config))
        words = [f"{field}={value}" for field, value in overrides.items()]
        workdir = os.path.join(out, names[label])
        command = [sys.executable, "-m", "metalearn.train", f"--config={config}", f"--workdir={workdir}",
                   *(f"--config.{word}" for word in words)]
        runs.append(dict(stage=stage, label=label, name=names[label], workdir=workdir, overrides=overrides,
                         config=config_lib.load(config, words), command=command))
    require(bool(runs), "--config", spec, "its sweep() yields nothing")
    return runs


def _module(spec: str):
    """(the config's module, its argument; that of sweep() where none is given)."""
    path, arg = config_lib.find(spec)
    module = config_lib.import_file(path)
    parameters = inspect.signature(module.sweep).parameters if hasattr(module, "sweep") else {}
    return module, arg or next((p.default for p in parameters.values()), "")


def changed(run: dict) -> list[str]:
    """What differs between the config that the run's directory was made with and the one that the sweep gives now."""
    if not os.path.exists(os.path.join(run["workdir"], "config.json")):
        return []
    return config_lib.differences(workdir_lib.read_config(run["workdir"]), run["config"])


def done(run: dict) -> dict | None:
    """The run's headline numbers, if it has finished under this very config."""
    config, result = (os.path.join(run["workdir"], name) for name in ("config.json", "result.json"))
    return workdir_lib.read_json(result) if os.path.exists(config) and not changed(run) else None


class Trainers:
    """The training processes of a sweep, at most `jobs` at a time, and what became of each run.

    keep      file descriptors that they hold open: the lock of the sweep's directory, so that one whose launcher was
              killed is not joined by a second
    failed, stopped   names of runs that ended badly, and of those that a signal kept from their end
    """

    def __init__(self, out: str, jobs: int, keep: tuple[int, ...] = ()):
        self.out, self.jobs, self.keep = out, jobs, keep
        self.failed, self.stopped = [], []
        self._ended, self._running, self._guard = False, set(), threading.RLock()
        self._took, self._left = [], 0  # seconds of runs that ended here, how many are still to end
        self._slots: queue.Queue = queue.Queue()
        for i in range(jobs):
            self._slots.put(cores()[i::jobs])

    def run(self, runs: list[dict]) -> None:
        """Runs what has no result yet, stage after stage. Output goes to OUT/logs/<name>.txt."""
        os.makedirs(os.path.join(self.out, "logs"), exist_ok=True)
        self._left = len(runs)
        for stage in sorted({run["stage"] for run in runs}):
            with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
                list(pool.map(self._one, [run for run in runs if run["stage"] == stage]))
        self.failed.sort()
        self.stopped.sort()

    def end(self) -> None:
        """Asks the running ones to save and stop; no other is started."""
        with self._guard:
            self._ended = True
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def _one(self, run: dict) -> None:
        if done(run) is not None:
            self._say(run, "done before")
            return
        try:
            workdir_lib.check(run["workdir"], run["config"])
        except ConfigError as error:
            self.failed.append(run["name"])
            self._say(run, f"FAILED: its directory {error.allowed}")
            return
        mine, began = self._slots.get(), time.monotonic()
        pin = ["taskset", "-c", ",".join(map(str, mine))] if mine and self.jobs > 1 and shutil.which("taskset") else []
        try:
            with open(os.path.join(self.out, "logs", run["name"] + ".txt"), "a", encoding="utf-8") as log:
                code = self._wait([*pin, *run["command"]], log)
        finally:
            self._slots.put(mine)
        text = " ".join(f"{k}={v}" for k, v in run["overrides"].items())
        if code in (None, cli.EXIT_SIGNAL) or self._ended and code:
            self.stopped.append(run["name"])
            self._say(run, "not started" if code is None else "stopped")
        elif code:
            self.failed.append(run["name"])
            self._say(run, f"FAILED with exit code {code}: {text}; see {log.name}")
        else:
            self._say(run, f"{time.monotonic() - began:.0f} s", time.monotonic() - began)

    def _say(self, run: dict, text: str, seconds: float | None = None) -> None:
        """A line of a run that is over, with how many are left and for how long at the pace so far."""
        with self._guard:
            self._left -= 1
            self._took += [] if seconds is None else [seconds]
            minutes = sum(self._took) / max(len(self._took), 1) * self._left / self.jobs / 60
            pace = f", about {minutes:.0f} min" if self._took and self._left else ""
            print(f"{run['name']}  {text}  ({self._left} left{pace})", flush=True)

    def _wait(self, command: list[str], log) -> int | None:
        """The exit code; None where the sweep had ended before."""
        with self._guard:
            if self._ended:
                return None
            process = subprocess.Popen(command, stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, pass_fds=self.keep)
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._guard:
                self._running.discard(process)


def summarise(spec: str, runs: list[dict], out: str) -> dict:
    """The sweep's Result: what the config's SUMMARY makes of the finished runs, else just their headlines."""
    (module, arg), finished = _module(spec), []
    for run in runs:
        if (headline := done(run)) is not None:
            finished.append(Run(run["label"], run["overrides"], headline, run["workdir"]))
    summary = getattr(module, "SUMMARY", "")
    summary = summary if isinstance(summary, str) else summary.get(arg, "")
    result = summariser(summary)(finished) if summary and finished else {"headline": {}}
    listed = [dict(label=run.label, overrides=run.overrides, headline=run.headline,
                   workdir=os.path.basename(run.workdir)) for run in finished]
    result = cli.plain(result | {"runs": listed})
    workdir_lib.write_json(os.path.join(out, "sweep.json"), result)
    tables.show(result)
    plots.plot(result, os.path.join(out, "plots", "sweep"))
    return result["headline"] | {"runs": len(finished)}


def summariser(name: str):
    """The function "module.function" in the folder of the config that was read last, or among the built-in ones."""
    module, _, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(f"configs.{module}"), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError("SUMMARY", name, f"must be MODULE.FUNCTION, as tables.gpicl.arms: {error}") from error


def cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn sweep")
    parser.add_argument("--config", required=True)
    parser.add_argument("--on", choices=("print", "local", "replicas", "slurm", "table"), default="local")
    parser.add_argument("--out", required=True, help="directory of the sweep; reused to go on")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time (0: one per core)")
    parser.add_argument("--sbatch", default="", metavar="FLAGS", help="with --on=slurm: of launch/slurm.py")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a sweep takes no overrides")
    require(args.jobs >= 0, "--jobs", args.jobs, "must be 0 or above")
    began, out = time.monotonic(), os.path.abspath(args.out)
    runs = expand(args.config, out)
    if args.on == "print":
        for run in runs:
            print(shlex.join(["python", *run["command"][1:]]))
        return 0
    if args.on == "slurm":
        launcher = os.path.join(os.path.dirname(lookup.CONFIGS), "launch", "slurm.py")
        require(os.path.isfile(launcher), "--on", "slurm", f"needs a clone of the repository: there is no {launcher}")
        words = [sys.executable, launcher, *shlex.split(args.sbatch), "--", "sweep", f"--config={args.config}",
                 f"--out={out}"]
        return subprocess.run(words, check=False).returncode
    if os.path.isdir(out):
        workdir_lib.plain(out, "--out")
    with workdir_lib.lock(out, "--out") as lock, signals.Noted(last=True) as stop:
        jobs = args.jobs or (1 if shutil.which("nvidia-smi") else min(len(cores()), 8))
        trainers = Trainers(out, jobs, (lock.fileno(),))
        stop.call = trainers.end
        if stop.number:
            trainers.end()
        if args.on == "local":
            trainers.run(runs)
        elif args.on == "replicas":
            from metalearn.runtime import packs  # Orbax comes with it, which no other sweep waits for

            jax.config.update("jax_platforms", "cpu")  # the accelerator is for the processes that train
            packed = packs.pack([run for run in runs if done(run) is None])
            trainers.run(packed)
            for found in packed:
                if "members" in found and done(found) is not None:
                    packs.unpack(found)
        if stop.number:
            print(f"stopped by {signals.name(stop.number)}; the same command goes on", file=sys.stderr)
            return cli.EXIT_SIGNAL
        headline = summarise(args.config, runs, out)
    cli.print_result(headline | {"failed": trainers.failed, "seconds": time.monotonic() - began})
    return 1 if trainers.failed else 0


if __name__ == "__main__":
    cli.main(main)
