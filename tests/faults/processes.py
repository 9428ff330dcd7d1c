"""Programs as processes: forked from one that has imported everything but not yet started JAX, so that a case costs no
imports; and runs of every family, as short as they can be and still save often."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable

from metalearn import cli, train
from metalearn.runtime.checkpoint import Checkpoints

OFTEN = ("train.steps=24", "train.log_every=4", "train.save_every=2", "train.steps_per_call=2", "train.eval_every=8")
FAMILIES = {
    "gpicl": ("configs/gpicl.py:smoke", (*OFTEN, "evaluators.curves.episodes=16")),
    "metadt": ("configs/metadt.py:smoke", OFTEN),
    "memnet": ("configs/memnet.py:smoke", OFTEN),
    "maml": ("configs/fewshot.py:smoke,maml", (*OFTEN, "evaluators.fewshot.episodes=8")),
    "protonet": ("configs/fewshot.py:smoke,protonet", (*OFTEN, "evaluators.fewshot.episodes=8")),
}


class Case:
    """What a section hands over: a name, whether the promise held, what was seen where it did not, and a number that is
    worth telling where it did."""

    def __init__(self, name: str, held: bool, seen: str = "", note: str = ""):
        self.name, self.held, self.seen, self.note = name, bool(held), "" if held else seen, note


def start(program, argv: Iterable[str], log: str, before: Callable[[], None] = lambda: None) -> int:
    """The process id of `program` with these words, its output appended to `log`; `before` runs in it first."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = [program.__name__.rpartition(".")[2], *argv]
        before()
        cli.main(program.main)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(pid: int, seconds: float = 600) -> int:
    """Its exit code, -N where signal N killed it; it is killed, and counts as -9, after `seconds`."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def alive(pid: int) -> bool:
    """Whether it runs still; one that has ended can still be asked for its code by `os.waitid` alone."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def run(program, argv: Iterable[str], log: str, before: Callable[[], None] = lambda: None, seconds: float = 600) -> int:
    return end(start(program, argv, log, before), seconds)


def words(family: str, workdir: str, *overrides: str) -> list[str]:
    """The command line that trains a family there."""
    config, own = FAMILIES[family]
    return [f"--config={config}", f"--workdir={workdir}", "--quiet", *(f"--config.{o}" for o in (*own, *overrides))]


def reference(family: str, folder: str, *overrides: str) -> tuple[dict, float]:
    """(what an uninterrupted run leaves, its seconds); the second of two, as the first one compiles."""
    for name in ("first", "reference"):
        began = time.monotonic()
        code = run(train, words(family, os.path.join(folder, name), *overrides), os.path.join(folder, "log"))
        assert code == 0, f"the uninterrupted run ended with {code}: {tail(os.path.join(folder, 'log'))}"
    return left(os.path.join(folder, "reference")), time.monotonic() - began


def left(workdir: str) -> dict:
    """What a run leaves that must not depend on how it came there: every leaf's hash, every number that it wrote."""
    found: dict = {}
    checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"))
    step = (checkpoints.steps() or [-1])[-1]
    found["step"] = step
    if step >= 0:
        found["leaves"] = {k: v["sha256"] for k, v in checkpoints.meta(step)["leaves"].items()}
    for name in ("metrics.jsonl", "result.json", *sorted(_listed(os.path.join(workdir, "eval")))):
        path = os.path.join(workdir, name if name in ("metrics.jsonl", "result.json") else f"eval/{name}")
        found[name] = open(path, encoding="utf-8").read() if os.path.exists(path) else None
    if found["result.json"]:
        found["result.json"] = {k: v for k, v in json.loads(found["result.json"]).items() if k != "seconds"}
    found["litter"] = [n for n in _listed(os.path.join(workdir, "checkpoints")) if not n.isdigit()]
    return found


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def differing(a: dict, b: dict) -> str:
    """Names of what differs, '' for nothing."""
    return ", ".join(k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k))


def tail(log: str, lines: int = 3) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        return " | ".join(file.read().splitlines()[-lines:])[-400:]


def dice(name: str) -> random.Random:
    return random.Random(f"faults {name}")
