"""R13 to R15: several processes that train one run, on one machine; one is killed or told to stop, or never comes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from metalearn.runtime.checkpoint import Checkpoints

from . import processes
from .processes import Case

TIMEOUT = 20  # seconds until one that is silent is missed


def _start(workdir: str, port: int, index: int, *changes: str, num: int = 2, devices: int = 2,
           timeout: int = TIMEOUT) -> subprocess.Popen:
    words = processes.words("gpicl", workdir, *changes)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "metalearn.train", *words, f"--processes={num}", f"--process={index}",
         f"--coordinator=127.0.0.1:{port}", f"--join_timeout={timeout}"],
        env=os.environ | {"XLA_FLAGS": flags}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _both(workdir: str, *changes: str, other: tuple[str, ...] = (), **how) -> list[subprocess.Popen]:
    port = _port()
    return [_start(workdir, port, 0, *changes, **how), _start(workdir, port, 1, *changes, *other, **how)]


def _ends(pair: list[subprocess.Popen], seconds: float = 300) -> tuple[list[int], str]:
    """([exit codes], what they said)."""
    said = []
    for process in pair:
        try:
            said.append(process.communicate(timeout=seconds)[1])
        except subprocess.TimeoutExpired:
            process.kill()
            said.append(f"still running after {seconds} s; " + process.communicate()[1])
    return [process.returncode for process in pair], " | ".join(said)[-400:]


def _leaves(workdir: str) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"))
    step = checkpoints.steps()[-1]
    return checkpoints._read(step, checkpoints.meta(step)["leaves"])


def _started(workdir: str, pair: list[subprocess.Popen]) -> None:
    """Waits for the run's first checkpoint."""
    checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"))
    while not checkpoints.steps() and all(process.poll() is None for process in pair):
        time.sleep(0.02)


def two(folder: str, num: int) -> Iterator[Case]:
    """Two processes of two devices each against one of four; and each way in which they can part."""
    path = lambda name: os.path.join(folder, name)
    adam = "optim.eps=1e-3"  # it divides by rounding elsewise
    codes, said = _ends([_start(path("one"), _port(), 0, adam, num=1, devices=4)])
    both, text = _ends(_both(path("two"), adam))
    found = codes == [0] and both == [0, 0]
    apart = max(float(abs(a - b).max(initial=0)) for a, b in zip(
        _leaves(path("one")).values(), _leaves(path("two")).values(), strict=True)) if found else np.inf
    yield Case("two processes, four devices", apart < 1e-4, f"{codes}, {both}, {apart:.1e} apart: {said} {text}",
               f"state {apart:.0e} from that of one process")
    reference = processes.left(path("two"))

    for how in (signal.SIGKILL, signal.SIGTERM):
        pair = _both(path(how.name), adam)
        _started(path(how.name), pair)
        began = time.monotonic()
        pair[1].send_signal(how)
        codes, said = _ends(pair)
        waited = time.monotonic() - began
        named = codes == [1, -9] and "process 1 of 2 said nothing" in said
        held = named if how == signal.SIGKILL else codes == [75, 75] and "Traceback" not in said
        again, text = _ends(_both(path(how.name), adam))
        differ = processes.differing(processes.left(path(how.name)), reference)
        yield Case(f"{how.name} to one of two", held and again == [0, 0] and not differ and waited < TIMEOUT + 10,
                   f"exits {codes} after {waited:.0f} s, then {again}; other: {differ}; {said} {text}",
                   f"exits {codes} after {waited:.0f} s; resumed to the same bits")

    began = time.monotonic()
    codes, said = _ends([_start(path("alone"), (port := _port()), 1)])
    waited = time.monotonic() - began
    yield Case("no coordinator", codes == [1] and f"127.0.0.1:{port}" in said and "Traceback" not in said
               and waited < 2 * TIMEOUT, f"{codes} after {waited:.0f} s: {said}")
    codes, said = _ends(_both(path("other"), other=("optim.lr=0.5",)))
    yield Case("another config", codes == [2, 2] and "config.optim.lr" in said, f"{codes}: {said}")
    with open(os.path.join(path("two"), "manifest.json"), encoding="utf-8") as file:
        yield Case("one writer", len(json.load(file)["history"]) == 1, "more than one session in the manifest")
