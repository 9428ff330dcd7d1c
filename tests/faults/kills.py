"""R1, R2, R3, R18: processes that are killed, stopped and doubled, and the bits that they end with."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator

import orbax.checkpoint as ocp

from metalearn import train

from . import processes
from .processes import Case

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def random_kills(family: str) -> Callable[[str, int], Iterator[Case]]:
    """R1: kill -9 at random moments, the same command again, until it ends; then all bits as without."""

    def section(folder: str, num: int) -> Iterator[Case]:
        whole, seconds = processes.reference(family, folder)
        dice, killed, number = processes.dice(family), 0, 0
        while killed < num:
            number += 1
            workdir, log, here = os.path.join(folder, f"run{number}"), os.path.join(folder, f"log{number}"), 0
            while True:
                pid = processes.start(train, processes.words(family, workdir), log)
                wait_until(pid, dice.uniform(0.05, 1.1 * seconds) if killed < num else 120)
                if not processes.alive(pid):
                    break
                os.kill(pid, signal.SIGKILL)
                processes.end(pid)
                killed, here = killed + 1, here + 1
            code = processes.end(pid)
            wrong = processes.differing(processes.left(workdir), whole)
            for i in range(here):
                yield Case(f"{family} run {number}, kill {i + 1} of {here}", code == 0 and not wrong,
                           f"exit {code}; differs: {wrong}; {processes.tail(log)}")

    return section


def wait_until(pid: int, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and processes.alive(pid):
        time.sleep(0.005)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_write(nth: int, dice) -> None:
    counting(ocp.CheckpointManager, "save", nth, die)


def while_writing(nth: int, dice) -> None:
    counting(ocp.CheckpointManager, "save", nth, lambda: threading.Timer(dice.uniform(0, 0.06), die).start())


def before_commit(nth: int, dice) -> None:
    counting(os, "rename", nth, die, lambda path, *_: "orbax-checkpoint-tmp" in str(path))


def while_deleting(nth: int, dice) -> None:
    """An old step half gone."""

    def half(path, *args, **kw):
        files = [os.path.join(f, n) for f, _, names in os.walk(path) for n in names]
        for file in files[: len(files) // 2]:
            os.remove(file)
        die()

    rmtree, count = shutil.rmtree, iter(range(10**6))

    def counted(path, *args, **kw):
        ours = os.path.basename(str(path)).isdigit() and next(count) == nth
        return (half if ours else rmtree)(path, *args, **kw)

    shutil.rmtree = counted


def counting(owner, name: str, nth: int, act: Callable[[], None], when=lambda *_: True) -> None:
    """Has `act` called before the nth call of owner.name."""
    function, count = getattr(owner, name), iter(range(10**6))

    def counted(*args, **kw):
        if when(*args) and next(count) == nth:
            act()
        return function(*args, **kw)

    setattr(owner, name, counted)


def inside_saving(folder: str, num: int) -> Iterator[Case]:
    """R2: killed at four points of a save, ten times each, at one save or another."""
    whole, _ = processes.reference("gpicl", folder)
    dice = processes.dice("saves")
    for point in (before_write, while_writing, before_commit, while_deleting):
        for i in range(num):
            name, nth = f"{point.__name__}{i}", dice.randrange(8)
            workdir, log = os.path.join(folder, name), os.path.join(folder, name + ".log")
            argv = processes.words("gpicl", workdir)
            first = processes.run(train, argv, log, lambda p=point, n=nth: p(n, dice))
            code = processes.run(train, argv, log)
            wrong = processes.differing(processes.left(workdir), whole)
            yield Case(name, first == -signal.SIGKILL and code == 0 and not wrong,
                       f"exits {first}, {code}; differs: {wrong}; {processes.tail(log)}")


def signals(folder: str, num: int) -> Iterator[Case]:
    """R3: each signal at random moments, once, twice within .4 s, or after a stop; then the same bits."""
    whole, seconds = processes.reference("gpicl", folder)
    dice = processes.dice("signals")
    for number in SIGNALS:
        for i in range(num):
            how = ("once", "twice", "stopped")[i % 3]
            name = f"{number.name} {how} {i}"
            workdir, log = os.path.join(folder, name), os.path.join(folder, name + ".log")
            argv = processes.words("gpicl", workdir)
            pid = processes.start(train, argv, log)
            # from when handlers stand: before that nothing has begun, and a signal means what it always does
            wait_until(pid, dice.uniform(0.3, seconds))
            if processes.alive(pid):
                if how == "stopped":
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.2)
                    os.kill(pid, signal.SIGCONT)
                os.kill(pid, number)
                if how == "twice":
                    time.sleep(dice.uniform(0, 0.4))
                    if processes.alive(pid):
                        os.kill(pid, number)
            began = time.monotonic()
            first, took = processes.end(pid), time.monotonic() - began
            code = processes.run(train, argv, log)
            wrong = processes.differing(processes.left(workdir), whole)
            yield Case(name, first in (0, 75) and took < 30 and code == 0 and not wrong,
                       f"exits {first} after {took:.1f} s, {code}; differs: {wrong}; {processes.tail(log)}")


def two_at_once(folder: str, num: int) -> Iterator[Case]:
    """R18: a second trainer is refused as long as the first one runs, and changes nothing of it."""
    whole, seconds = processes.reference("gpicl", folder)
    for i in range(num):
        workdir, log = os.path.join(folder, f"run{i}"), os.path.join(folder, f"log{i}")
        argv = processes.words("gpicl", workdir)
        pids = [processes.start(train, argv, f"{log}-{n}") for n in range(2)]
        codes = sorted(processes.end(pid) for pid in pids)
        wrong = processes.differing(processes.left(workdir), whole)
        yield Case(f"two trainers {i}", codes == [0, 2] and not wrong, f"exits {codes}; differs: {wrong}")
