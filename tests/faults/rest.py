"""R8 to R22: devices, broken batches, bad input, other configs, archives, a soak, and what saving costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from docs import reproduce
from metalearn import checkpoint, collect, eval as eval_program, report, sweep, train
from metalearn.runtime import writer
from metalearn.runtime.checkpoint import Checkpoints
from tests import benchmark

from . import damage, kills, processes
from .processes import Case


def devices(folder: str, num: int) -> Iterator[Case]:
    """R8: a run of d devices gone on with by e: its state comes back to the bit, its next losses to rounding."""
    many = lambda: os.environ.update(XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} "
                                               "--xla_force_host_platform_device_count=8")
    losses = {}
    for d in (1, 2, 4, 8):
        for e in (1, 2, 4, 8):
            run, log = os.path.join(folder, f"{d}to{e}"), os.path.join(folder, "log")
            argv = lambda n, steps, path=run: processes.words("gpicl", path, "train.batch=8", f"train.devices={n}",
                                                               f"train.steps={steps}")
            codes = [processes.run(train, argv(d, 8), log, many)]
            before = processes.left(run).get("leaves")
            codes.append(processes.run(train, argv(e, 8), log, many))  # other devices alone: evaluated anew
            same = processes.left(run).get("leaves") == before
            codes.append(processes.run(train, argv(e, 12), log, many))
            with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
                losses[d, e] = json.loads(file.read().splitlines()[-1])["loss"]
            near = abs(losses[d, e] / losses[1, 1] - 1) < 1e-5
            yield Case(f"{d} to {e} devices", codes == [0, 0, 0] and same and near,
                       f"exits {codes}, state {'same' if same else 'other'}, loss {losses[d, e]} for {losses[1, 1]}")


def twice(folder: str, num: int) -> Iterator[Case]:
    """R9: the same command in two processes. That a resumed run goes on with the same episodes (R10) is R1's: every
    number that it writes is compared with those of one that was never stopped."""
    for family in processes.FAMILIES:
        own, steps = os.path.join(folder, family), (f"train.steps={num}", f"train.save_every={num}")
        os.makedirs(own)
        second, _ = processes.reference(family, own, *steps)
        differ = processes.differing(processes.left(os.path.join(own, "first")), second)
        yield Case(f"{family}, {num} updates", not differ, differ)


def ordinary(*words: str):
    """A section of ordinary tests."""
    return lambda folder, num: tests(*words)


def tests(*words: str) -> Iterator[Case]:
    """The cases of ordinary test files, as a process of its own."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:warnings", *words],
                          capture_output=True, text=True, check=False)
    found = re.findall(r"^(PASSED|FAILED|ERROR) (\S.*)$", done.stdout, re.M)
    for how, name in found:
        yield Case(name, how == "PASSED", how)
    if not found or (done.returncode and all(how == "PASSED" for how, _ in found)):
        yield Case(" ".join(words), False, done.stdout[-300:])


def broken_batches(folder: str, num: int) -> Iterator[Case]:
    """R11, R12: once, ten in a row, for ever; a learning rate at which nothing is learned."""
    yield from tests("tests/test_runtime_guard.py")
    argv = processes.words("memnet", os.path.join(folder, "hot"), "train.steps=200", "train.max_bad_steps=20",
                           "optim.lr=1e6", "optim.groups.feedback.lr=1e6", "train.save_every=20")
    log = os.path.join(folder, "log")
    code = processes.run(train, argv, log)
    with open(os.path.join(folder, "hot", "metrics.jsonl"), encoding="utf-8") as file:
        refused = [json.loads(line)["skipped"] for line in file]
    yield Case("memnet at lr 1e6", code == 1 or max(refused) < 0.25, f"exit {code}, refused {refused}")


ODD = (-1, 10**20, "1e20", "nan", "inf", "x", "../x", "None", "()", "{}", "True")


def bad_input(folder: str, num: int) -> Iterator[Case]:
    """R16: exit code 2 within 5 s, one line, nothing written, no traceback."""
    smoke, new = "--config=configs/gpicl.py:smoke", os.path.join(folder, "new")
    lines = [(train, [smoke, f"--workdir={new}", f"--config.{field}={value}"])
             for field in ("train.steps", "train.batch", "optim.lr", "task.ways", "task.dataset", "learner.layout",
                           "evaluators.curves.sets") for value in ODD
             if (field, value) not in (("optim.lr", 10**20), ("optim.lr", "1e20"))]  # large, but numbers
    lines += [(train, [f"--config={config}", f"--workdir={new}"])
              for config in ("", "none.py", "configs", "configs/gpicl.py:none", "configs/common.py", "README.md")]
    lines += [(train, [smoke]), (train, [f"--workdir={new}"]), (train, [smoke, f"--workdir={new}", "--none"])]
    lines += [(module, [flag]) for module in (eval_program, sweep, collect, checkpoint, benchmark, report, reproduce)
              for flag in ("", "--none", "--workdir=none", "--config=none.py")]
    for module, argv in lines:
        log = os.path.join(folder, "log")
        held, seen = damage.program(module, argv, log, (2,), 5, "error: ")
        with open(log, encoding="utf-8") as file:
            one = file.read().count("\n") == 1
        yield Case(f"{module.__name__} {' '.join(argv[2:] or argv)}", held and one and not os.path.exists(new), seen)
        shutil.rmtree(new, ignore_errors=True)


def other_configs(folder: str, num: int) -> Iterator[Case]:
    """R17: refused with the fields that differ, and nothing of the run is touched."""
    run = damage.finished(folder)
    before = {p: os.path.getmtime(p) for p in damage.files(run)}
    for override in ("learner.network.width=32", "optim.name=lion", "task.ways=3", "seed=3", "train.batch=4",
                     "optim.lr=0.1", "train.steps=2"):
        held, seen = damage.program(train, processes.words("gpicl", run, override), os.path.join(folder, "log2"), (2,),
                                    10, "error: ")
        yield Case(override, held and before == {p: os.path.getmtime(p) for p in damage.files(run)}, seen)


SOAK = """
import json, os, sys
sys.path.insert(0, "tests")
from metalearn import train
from metalearn.runtime import experiment, loop
from metalearn.runtime.writer import Writer
from toys import settings, toy
experiment.build = lambda config, task=None: toy(config)
make, write, seen, updates = loop.make_update, Writer.write, [], []
def made(*args):
    updates.append(make(*args))
    return updates[-1]
def written(self, step, numbers):
    write(self, step, numbers)
    pages = int(open("/proc/self/statm").read().split()[1])
    seen.append((pages * 4, len(os.listdir("/proc/self/fd")), updates[-1]._cache_size()))
loop.make_update, Writer.write = made, written
n = int(sys.argv[1])
config = settings(f"train.steps={n}", "train.steps_per_call=100", "train.log_every=500", f"train.save_every={n // 20}")
train.run(config, sys.argv[2], quiet=True)
links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
files = [os.readlink(link) for link in links if os.path.exists(link)]
print(json.dumps([seen, sum(not name.endswith(".ttf") for name in files)]))     # fonts are matplotlib's to keep
"""


def soak(folder: str, num: int) -> Iterator[Case]:
    """R21: the smallest run, `num` steps and 20 checkpoints of it."""
    done = subprocess.run([sys.executable, "-c", SOAK, str(num), os.path.join(folder, "run")], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr[-400:]
    seen, open_files = json.loads(done.stdout.splitlines()[-1])
    warm, last = seen[len(seen) // 4], seen[-1]
    growth = last[0] - warm[0]
    yield Case("memory", growth < 0.02 * warm[0], f"{warm[0]} kB, then {growth:+} kB",
               f"{warm[0]} kB after a quarter of {num:,} steps, {growth:+} kB at their end")
    # in between they are also those of the checkpoint that is being written behind
    yield Case("descriptors", open_files <= seen[0][1], f"{seen[0][1]} before the first save, {open_files} at the end")
    yield Case("compilations", last[2] == 1, f"{last[2]} programs")


DIGITS = ("--quiet", "--config=configs/gpicl.py:digits", "--config.evaluators.curves.episodes=256")


def cost(folder: str, num: int) -> Iterator[Case]:
    """R22: what saving keeps the updates waiting, of the time between two saves at the default interval."""
    run, saves = os.path.join(folder, "run"), os.path.join(folder, "saves")

    def timed():
        save = Checkpoints.save

        def clocked(self, *args, **kw):
            began = time.monotonic()
            save(self, *args, **kw)
            with open(saves, "a", encoding="utf-8") as file:
                file.write(f"{began} {time.monotonic()}\n")

        Checkpoints.save = clocked

    code = processes.run(train, [*DIGITS, f"--workdir={run}", "--config.train.steps=2000"], os.path.join(folder, "log"),
                         timed)
    with open(saves, encoding="utf-8") as file:
        times = [tuple(map(float, line.split())) for line in file]
    spent = sum(end - begin for begin, end in times[1:])  # the first of a session is waited for, and imports
    share, text = spent / (times[-1][0] - times[0][1]), ", ".join(f"{1000 * (end - begin):.0f}" for begin, end in times)
    yield Case("blocking share", code == 0 and len(times) == 4 and share < 0.05, f"exit {code}, {share:.1%}, {text} ms",
               f"{share:.2%} of the time between saves ({text} ms; the first is waited for)")


def goodput(folder: str, num: int) -> Iterator[Case]:
    """R22: what is left of the time with a kill -9 every `num` seconds: not what went into starting, up to the first
    new line of metrics, nor what came after the newest checkpoint."""
    run, log = os.path.join(folder, "run"), os.path.join(folder, "log")
    metrics, steps = os.path.join(run, "metrics.jsonl"), Checkpoints(os.path.join(run, "checkpoints")).steps
    words = [*DIGITS, f"--workdir={run}", f"--config.train.steps={80 * num}"]
    first, killed, starting, lost = time.time(), 0, 0.0, 0.0
    while killed < 20:  # or it would never end where it does not get on
        began, pid = time.time(), processes.start(train, words, log)
        while processes.alive(pid) and not (os.path.exists(metrics) and os.path.getmtime(metrics) > began and
                                            max(line["step"] for line in writer.read(metrics) or [{"step": 0}])
                                            > max(steps(), default=0)):
            time.sleep(0.05)
        going = time.time()
        starting += going - began
        kills.wait_until(pid, num - (going - began))
        if not processes.alive(pid):
            break
        os.kill(pid, signal.SIGKILL)
        processes.end(pid)
        newest = os.path.join(run, "checkpoints", str(max(steps(), default="")))
        lost += time.time() - max(going, os.path.getmtime(newest) if steps() else 0)
        killed += 1
    code, wall = processes.end(pid), time.time() - first
    each = (starting + lost) / max(killed, 1)
    yield Case("goodput", code == 0 and killed and each < 0.05 * 600, f"exit {code}, {killed} kills, {each:.0f} s each",
               f"{1 - (starting + lost) / wall:.1%} with a kill -9 every {num} s ({killed} of them; of {wall:.0f} s "
               f"{starting:.0f} went into starting, {lost:.0f} were done again): {600 / (600 + each):.1%} with one "
               "every 10 minutes")
