"""R4 to R7, and hostile directories: what is on the disk is not what was written, or nothing more can be."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import tensorstore as ts

from metalearn import eval as eval_program, train
from metalearn.runtime import checkpoint
from metalearn.runtime.checkpoint import Checkpoints

from . import processes
from .processes import Case


def finished(folder: str) -> str:
    """A finished run with two checkpoints."""
    processes.reference("gpicl", folder)
    return os.path.join(folder, "reference")


def files(step: str) -> list[str]:
    return sorted(os.path.join(f, n) for f, _, names in os.walk(step) for n in names)


def restored(checkpoints: Checkpoints, template: dict) -> tuple[int, dict[str, bytes], str]:
    """(step, bytes of every leaf, what was said of it)."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found, meta = checkpoints.restore(template)
    return meta["step"], {k: np.asarray(v).tobytes() for k, v in found.items()}, said.getvalue()


def damages(folder: str, plan: Callable[[list[str]], Iterator[tuple[str, str, bytes | None]]]) -> Iterator[Case]:
    """For each (name, file, its new content or None for gone): restores the right step's bits, or those of the step
    before with a warning."""
    run = finished(folder)
    checkpoints = Checkpoints(os.path.join(run, "checkpoints"))
    newest = checkpoints.steps()[-1]
    template = {k: jax.ShapeDtypeStruct(tuple(v["shape"]), np.dtype(v["dtype"]))
                for k, v in checkpoints.meta()["leaves"].items()}
    right = {}
    for step in checkpoints.steps():
        found, _ = checkpoints.restore(template, step)
        right[step] = {k: np.asarray(v).tobytes() for k, v in found.items()}
    for name, path, content in plan(files(os.path.join(run, "checkpoints", str(newest)))):
        with open(path, "rb") as file:
            whole = file.read()
        os.remove(path)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        try:
            step, leaves, said = restored(checkpoints, template)
            yield Case(name, leaves == right[step] and (step == newest or f"checkpoint {newest}" in said),
                       f"step {step}, {'other' if leaves != right[step] else 'right'} bits, said {said!r}")
        except Exception as error:
            yield Case(name, False, f"{type(error).__name__}: {error}")
        with open(path, "wb") as file:
            file.write(whole)


def flips(folder: str, num: int) -> Iterator[Case]:
    """R4"""
    dice = processes.dice("flips")

    def plan(paths):
        paths = [p for p in paths if os.path.getsize(p)]
        for i in range(num):
            path = dice.choice(paths)
            with open(path, "rb") as file:
                data = bytearray(file.read())
            place = dice.randrange(len(data))
            data[place] ^= 1 << dice.randrange(8)
            yield f"flip {i}: byte {place} of {os.path.basename(path)}", path, bytes(data)

    yield from damages(folder, plan)


def cuts(folder: str, num: int) -> Iterator[Case]:
    """R5"""

    def plan(paths):
        for path in paths:
            yield f"{os.path.basename(path)} gone", path, None
            with open(path, "rb") as file:
                data = file.read()
            for percent in (0, 10, 50, 99):
                yield f"{os.path.basename(path)} cut to {percent} %", path, data[: len(data) * percent // 100]

    yield from damages(folder, plan)


def program(module, argv: list[str], log: str, codes: tuple[int, ...], seconds: float, *said: str) -> tuple[bool, str]:
    """(whether it ended so, in time, in words of ours and without a traceback; what was seen)."""
    if os.path.exists(log):
        os.remove(log)
    began = time.monotonic()
    code, took = processes.run(module, argv, log), time.monotonic() - began
    with open(log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    held = code in codes and took < seconds and "Traceback" not in text and all(word in text for word in said)
    return held, f"exit {code} after {took:.1f} s: {processes.tail(log)}"


def all_bad(folder: str, num: int) -> Iterator[Case]:
    """R6: never from step 0 in silence."""
    run, log = finished(folder), os.path.join(folder, "log2")
    os.remove(os.path.join(run, "result.json"))
    argv = processes.words("gpicl", run)
    for path in files(os.path.join(run, "checkpoints")):
        with open(path, "wb") as file:
            file.write(b"\0" * 9)
    for module, words in ((train, argv), (eval_program, [f"--workdir={run}"])):
        yield Case(f"all bad, {words[0]}", *program(module, words, log, (1,), 20, "error: no healthy checkpoint"))
    shutil.rmtree(os.path.join(run, "checkpoints"))
    yield Case("all gone, train", *program(train, argv, log, (2,), 20, "its checkpoints are gone"))
    yield Case("all gone, eval", *program(eval_program, [f"--workdir={run}"], log, (2,), 20, "no checkpoint"))


def disk(folder: str, num: int) -> Iterator[Case]:
    """R7: a file system that is full after so many bytes, and with room again; a directory that is taken away."""
    whole, _ = processes.reference("gpicl", folder)
    dice = processes.dice("disk")
    small = os.path.join(folder, "small")
    os.makedirs(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=False,
                      capture_output=True).returncode == 0:
        try:
            for i in range(3 * num):
                run, log, filler = (os.path.join(small, n) for n in (f"run{i}", "log", "filler"))
                log = os.path.join(folder, f"disk{i}.log")
                free = dice.randrange(20_000, 350_000)  # a whole run takes more
                with open(filler, "wb") as file:
                    stat = os.statvfs(small)
                    file.write(b"\1" * max(stat.f_bavail * stat.f_bsize - free, 0))
                held, seen = program(train, processes.words("gpicl", run), log, (1, 2), 60, "error:")
                os.remove(filler)
                code = processes.run(train, processes.words("gpicl", run), log)
                wrong = processes.differing(processes.left(run), whole)
                yield Case(f"full after {free} bytes", held and code == 0 and not wrong,
                           f"{seen}; then exit {code}, differs: {wrong}")
                shutil.rmtree(run, ignore_errors=True)
            for i in range(num):
                run, log = os.path.join(small, f"read-only{i}"), os.path.join(folder, f"read-only{i}.log")
                pid = processes.start(train, processes.words("gpicl", run), log)
                begun(pid, run, dice.uniform(0, 0.3))
                while subprocess.run(["mount", "-o", "remount,ro", small], check=False, capture_output=True).returncode:
                    time.sleep(0.002)  # busy: a file is open for writing
                code, text = processes.end(pid), open(log, encoding="utf-8").read()
                again = processes.run(train, processes.words("gpicl", run), log)
                subprocess.run(["mount", "-o", "remount,rw", small], check=True)
                last = processes.run(train, processes.words("gpicl", run), log)
                wrong = processes.differing(processes.left(run), whole)
                yield Case(f"read-only under the run {i}", (code, again, last) in ((1, 2, 0), (0, 0, 0))
                           and "Traceback" not in text and not wrong,
                           f"exits {code}, {again}, {last}; differs: {wrong}; {text[-300:]}")
        finally:
            subprocess.run(["umount", small], check=False)
    else:
        yield Case("full and read-only", True, note="not tried: mounting a small tmpfs needs root")
    for i in range(2 * num):
        run, log = os.path.join(folder, f"removed{i}"), os.path.join(folder, f"removed{i}.log")
        pid = processes.start(train, processes.words("gpicl", run), log)
        begun(pid, run, dice.uniform(0, 0.3))
        os.rename(run, run + "-moved")
        code, text = processes.end(pid), open(log, encoding="utf-8").read()
        yield Case(f"directory removed {i}", code == 1 and "RESULT" not in text and "Traceback" not in text,
                   f"exit {code}: {processes.tail(log)}")


def begun(pid: int, run: str, seconds: float) -> None:
    """Waits until a run has written its first line, and that long."""
    while processes.alive(pid) and not os.path.exists(os.path.join(run, "metrics.jsonl")):
        time.sleep(0.005)
    time.sleep(seconds)


def rehashed(run: str, change: Callable[[dict], None]) -> None:
    """The newest step's metadata changed by someone who knows how they are hashed."""
    steps = os.path.join(run, "checkpoints")
    path = os.path.join(steps, str(max(map(int, os.listdir(steps)))), "meta", "metadata")
    with open(path, encoding="utf-8") as file:
        meta = json.load(file)
    del meta["sha256"]
    change(meta)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(meta | {"sha256": checkpoint._hash_json(meta)}, file)


def config(run: str, change: Callable[[dict], None]) -> None:
    path = os.path.join(run, "config.json")
    with open(path, encoding="utf-8") as file:
        fields = json.load(file)
    change(fields)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(fields, file)


def linked(run: str, name: str, there: str) -> None:
    path = os.path.join(run, name)
    shutil.rmtree(path) if os.path.isdir(path) else os.path.exists(path) and os.remove(path)
    os.symlink(there, path)


def piped(run: str, name: str) -> None:
    path = os.path.join(run, name)
    os.path.exists(path) and os.remove(path)
    os.mkfifo(path)


def chunked(run: str) -> None:
    """A chunk of 4 TB by its own word, in a file of a few kB; the metadata and their hashes are as they were."""
    newest = os.path.join(run, "checkpoints", str(Checkpoints(os.path.join(run, "checkpoints")).steps()[-1]))
    database = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{newest}/state/"}).result()
    name = next(key for key in database.list().result() if key.startswith(b"params/") and key.endswith(b"/.zarray"))
    array = json.loads(database.read(name).result().value)
    database.write(name, json.dumps(array | {"chunks": [2**40, *array["chunks"][1:]]}).encode()).result()


first = lambda meta: meta["leaves"][sorted(k for k in meta["leaves"] if k.startswith("params/"))[0]]
HOSTILE = {
    **{f"{name} a link": lambda run, there, n=name: linked(run, n, there)
       for name in ("checkpoints", "eval", "plots", ".lock", "metrics.jsonl", "result.json", "manifest.json")},
    **{f"{name} a pipe": lambda run, there, n=name: piped(run, n)
       for name in (".lock", "config.json", "metrics.jsonl", "eval/curves.json")},
    "a label that is a path": lambda run, there: config(
        run, lambda c: c["evaluators"].update({f"{there}/x": c["evaluators"]["curves"]})),
    "a task that is a module": lambda run, there: config(run, lambda c: c["task"].update(name="os.path")),
    "a learner that leads up": lambda run, there: config(run, lambda c: c["learner"].update(name="../train")),
    "a config nested without end": lambda run, there: open(os.path.join(run, "config.json"), "w").write("[" * 10**5),
    "a model that fits nowhere": lambda run, there: config(
        run, lambda c: c["learner"]["network"].update(width=2**20, mlp=2**20)),
    "metadata nested without end": lambda run, there: [
        open(p, "w").write("[" * 10**5) for p in files(f"{run}/checkpoints") if p.endswith("meta/metadata")],
    "no leaves": lambda run, there: rehashed(run, lambda m: m.update(leaves={})),
    "a huge leaf": lambda run, there: rehashed(run, lambda m: first(m).update(shape=[2**40])),
    "a huge chunk": lambda run, there: chunked(run),
    "a negative shape": lambda run, there: rehashed(run, lambda m: first(m).update(shape=[-1])),
    "a leaf of objects": lambda run, there: rehashed(run, lambda m: first(m).update(dtype="object")),
    "a step that is NaN": lambda run, there: rehashed(run, lambda m: m.update(step=float("nan"))),
}


def apart(function: Callable[[str, str], None], *args: str) -> None:
    """In a process of its own: one that has used TensorStore must not fork."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function(*args)
            code = 0
        finally:
            os._exit(code)
    assert not os.waitpid(pid, 0)[1]


def hostile(folder: str, num: int) -> Iterator[Case]:
    """Nothing is followed, waited for, allocated or written elsewhere; and every answer is one of ours."""
    whole = finished(folder)
    for i, (name, make) in enumerate(HOSTILE.items()):
        for module in (eval_program, train):
            run, there = (os.path.join(folder, f"{kind}{i}-{module.__name__[10:]}") for kind in ("run", "there"))
            shutil.copytree(whole, run)
            os.makedirs(there)
            shutil.copytree(os.path.join(whole, "checkpoints"), os.path.join(there, "8"))
            os.remove(os.path.join(run, "result.json"))
            apart(make, run, there)
            before = {p: os.path.getmtime(p) for p in files(there)}
            argv = [f"--workdir={run}"] if module is eval_program else processes.words("gpicl", run)
            held, seen = program(module, argv, os.path.join(folder, f"log{i}"), (0, 1, 2), 60)
            yield Case(f"{module.__name__}: {name}", held and before == {p: os.path.getmtime(p) for p in files(there)},
                       seen)
