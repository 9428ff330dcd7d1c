"""Run a config's sweep: every combination that its `sweep()` yields, each in a numbered work directory.

  bash launch/local.sh sweep --config=configs/gpicl.py:phases --on=local --out=runs/phases [--jobs=2]

  --on=print   writes one train command per line (hand them to any scheduler)
  --on=local   runs them here, `--jobs` at a time (default: one per core, or one at a time with an accelerator)

The same command again skips what is done and goes on with the rest; a failed run is named and does not stop the
others. `sweep()` yields dicts of dotted overrides; three keys are for the launcher: `_stage` (int: lower stages finish
first), `_config` (another FILE:argument for this run, from the repository's root), and '{dir}' inside a value (the
sweep's directory, so that a later stage can say init_from='{dir}/000'). The config's `summarise(results)` turns the
runs' headlines into one table, figure and RESULT line.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import json
import os
import queue
import shlex
import shutil
import subprocess
import sys
import time

from metalearn import cli
from metalearn.reporting import plots, tables
from metalearn.runtime import config as config_lib
from metalearn.runtime import workdir as workdir_lib
from metalearn.validate import require

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where `_config` of a sweep is looked for


def expand(spec: str, out: str) -> list[dict]:
    """[{stage, name, workdir, overrides, command}, ...] of the config's sweep; every config is loaded, as a check."""
    path, _, arg = spec.partition(":")
    module = config_lib.import_file(path)
    require(hasattr(module, "sweep"), "--config", spec, "has no sweep(): run it with train")
    combinations = module.sweep(arg) if inspect.signature(module.sweep).parameters else module.sweep()
    runs = []
    for number, overrides in enumerate(combinations):
        overrides = {k: v.replace("{dir}", out) if isinstance(v, str) else v for k, v in overrides.items()}
        stage, config = overrides.pop("_stage", 0), os.path.join(ROOT, overrides.pop("_config", spec))
        words = [f"{field}={value}" for field, value in overrides.items()]
        config_lib.load(config, words)
        name = f"{number:03d}"
        workdir = os.path.join(out, name)
        command = [sys.executable, "-m", "metalearn.train", f"--config={config}", f"--workdir={workdir}",
                   *(f"--config.{word}" for word in words)]
        runs.append(dict(stage=stage, name=name, workdir=workdir, overrides=overrides, command=command))
    require(bool(runs), "--config", spec, "its sweep() yields nothing")
    return runs


def run_local(runs: list[dict], out: str, jobs: int) -> list[str]:
    """Runs what has no result yet; returns the names of the failed ones. Output goes to OUT/logs/<name>.txt."""
    os.makedirs(os.path.join(out, "logs"), exist_ok=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    slots: queue.Queue = queue.Queue()
    for i in range(jobs):
        slots.put(cores[i::jobs])
    # runs of one sweep differ in numbers, not in programs: the first compiles for all
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": os.path.join(out, ".compiled"),
                                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
    failed = []

    def one(run):
        if os.path.exists(os.path.join(run["workdir"], "result.json")):
            print(f"{run['name']}  done before", flush=True)
            return
        mine, began = slots.get(), time.monotonic()
        pin = ["taskset", "-c", ",".join(map(str, mine))] if mine and jobs > 1 and shutil.which("taskset") else []
        try:
            with open(os.path.join(out, "logs", run["name"] + ".txt"), "a", encoding="utf-8") as log:
                code = subprocess.run([*pin, *run["command"]], stdout=log, stderr=log, env=environment,
                                      cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode
        finally:
            slots.put(mine)
        text = " ".join(f"{k}={v}" for k, v in run["overrides"].items())
        if code:
            failed.append(run["name"])
            print(f"{run['name']}  FAILED with exit code {code}: {text}; see {log.name}", flush=True)
        else:
            print(f"{run['name']}  {time.monotonic() - began:.0f} s  {text}", flush=True)

    for stage in sorted({run["stage"] for run in runs}):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(one, [run for run in runs if run["stage"] == stage]))
    return sorted(failed)


def summarise(spec: str, runs: list[dict], out: str) -> dict:
    """The sweep's Result: the config's own `summarise`, else just the runs' headlines."""
    module, results = config_lib.import_file(spec.partition(":")[0]), []
    for run in runs:
        path = os.path.join(run["workdir"], "result.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                results.append((run["overrides"], json.load(file), run["workdir"]))
    result = {"headline": {}}
    if results and hasattr(module, "summarise"):
        takes_arg = len(inspect.signature(module.summarise).parameters) > 1
        result = module.summarise(results, spec.partition(":")[2]) if takes_arg else module.summarise(results)
    runs = [dict(overrides=o, headline=h, workdir=os.path.basename(w)) for o, h, w in results]
    result = cli.plain(result | {"runs": runs})
    workdir_lib.write_json(os.path.join(out, "sweep.json"), result)
    tables.show(result)
    plots.plot(result, os.path.join(out, "plots", "sweep"))
    return result["headline"] | {"runs": len(results)}


def default_jobs() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if shutil.which("nvidia-smi") else min(cores, 8)


def main() -> int:
    parser = cli.Parser(__doc__, prog="python -m metalearn.sweep")
    parser.add_argument("--config", required=True)
    parser.add_argument("--on", choices=("print", "local"), default="local")
    parser.add_argument("--out", required=True, help="directory of the sweep; reused to go on")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time (0: one per core)")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a sweep takes no overrides")
    require(args.jobs >= 0, "--jobs", args.jobs, "must be 0 or above")
    began, out = time.monotonic(), os.path.abspath(args.out)
    runs = expand(os.path.abspath(args.config.partition(":")[0]) + ":" + args.config.partition(":")[2], out)
    if args.on == "print":
        for run in runs:
            print(shlex.join(["python", *run["command"][1:]]))
        return 0
    failed = run_local(runs, out, args.jobs or default_jobs())
    headline = summarise(args.config, runs, out)
    cli.print_result(headline | {"failed": failed, "seconds": time.monotonic() - began})
    return 1 if failed else 0


if __name__ == "__main__":
    cli.main(main)
