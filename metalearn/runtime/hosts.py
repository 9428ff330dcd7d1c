"""Several processes that train one run together, by JAX's own engine (Gloo on CPU, NCCL on GPU, ICI on TPU).

Every process draws the same batches, since data are a function of (seed, step), and holds the part of each that its
devices hold. The first one alone writes: the others keep what they would write in a folder of their own, which goes
with them, and read the run's checkpoints. With one process nothing here does anything.
"""

import atexit
import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its client has no public name
from jax.experimental import multihost_utils

from metalearn.cli import Failure, say
from metalearn.validate import ConfigError, require


def join(address: str, num: int, index: int, timeout: int) -> None:
    """Waits for the others at `address` (HOST:PORT, where process 0 listens), before JAX starts.

    timeout   seconds, for all to come, and for one that is silent to be missed

    Raises ConfigError for wrong flags, Failure where not all of them come in time.
    """
    require(num >= 1, "--processes", num, "must be 1 or above")
    require(0 <= index < num, "--process", index, f"must be from 0 to {num - 1}")
    require(timeout >= 1, "--join_timeout", timeout, "must be 1 or above, in seconds")
    if num == 1:
        return
    require(address.rpartition(":")[2].isdigit(), "--coordinator", address, "must be HOST:PORT of process 0")
    try:
        if index:
            _reach(address.rpartition(":")[0], address.rpartition(":")[2], timeout)
        # JAX aborts with its native stack where one is silent: later than Watch, which says who in a line
        jax.distributed.initialize(address, num, index, initialization_timeout=timeout,
                                   heartbeat_timeout_seconds=2 * timeout + 10, shutdown_timeout_seconds=timeout)
    except (RuntimeError, OSError) as error:
        raise Failure(f"process {index} of {num} did not meet the others at {address} within {timeout} s "
                      f"({' '.join(str(error).split())[:150]})") from None
    Watch.of_run = Watch(num, index, timeout)
    Watch.of_run.start()
    atexit.register(Watch.of_run.end)


class Watch(threading.Thread):
    """Says each second that this process is there, in the service of process 0, and ends this process where another
    says nothing new for `timeout` seconds: the main thread may wait in a collective that never ends.

    scratch   a folder that goes with the process
    """

    of_run: "Watch | None" = None

    def __init__(self, num: int, index: int, timeout: int):
        super().__init__(name="hosts", daemon=True)
        self.num, self.index, self.timeout, self.scratch = num, index, timeout, ""
        self._over = threading.Event()
        self._client: Any = distributed.global_state.client
        self._folder = "metalearn/alive/"

    def run(self) -> None:
        last, heard = {}, dict.fromkeys(map(str, range(self.num)), time.monotonic())
        while not self._over.wait(1):
            now = time.monotonic()
            try:
                self._client.key_value_set(f"{self._folder}{self.index}", str(now), allow_overwrite=True)
                said = dict(self._client.key_value_dir_get(self._folder))
                said = {key.rpartition("/")[2]: text for key, text in said.items()}
            except Exception:  # of several types; then nothing is known but that process 0 does not answer
                said = {who: None for who in heard if who != "0"} | {"0": last.get("0")}
            heard |= {who: now for who, text in said.items() if text is None or text != last.get(who)}
            last |= said
            if silent := [who for who in heard if now - heard[who] > self.timeout]:
                say(f"error: process {' and '.join(silent)} of {self.num} said nothing for {self.timeout} s; the same "
                    "commands go on from the last checkpoint")
                shutil.rmtree(self.scratch, ignore_errors=True)
                os._exit(1)

    def end(self) -> None:
        """Leaves with the others. A thread inside JAX's client when the interpreter goes would abort the process."""
        jax.distributed.shutdown()
        self._over.set()
        self.join(self.timeout)


def wait_for_watch() -> None:
    """After an error of a collective: until it is known who is silent, which ends this process, or that nobody is."""
    time.sleep(Watch.of_run.timeout + 5 if Watch.of_run else 0)


def _reach(host: str, port: str, timeout: float) -> None:
    """Waits for process 0 to listen: JAX's own wait ends in an abort. Raises OSError."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def writable(workdir: str) -> Iterator[str]:
    """`workdir` for the first process, a folder that is removed for each of the others."""
    if first():
        yield workdir
    else:
        with tempfile.TemporaryDirectory(prefix="metalearn-process-") as scratch:
            if Watch.of_run:
                Watch.of_run.scratch = scratch
            yield scratch


def largest(number: int) -> int:
    """The largest of all processes' numbers."""
    return number if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(number)).max())


def agree(facts: dict[str, str]) -> None:
    """ConfigError naming the first of `facts` that another process has otherwise."""
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)
    padded = np.zeros(largest(len(mine)), np.uint8)
    padded[:len(mine)] = mine
    others = [json.loads(bytes(row).rstrip(b"\0")) for row in multihost_utils.process_allgather(padded)]
    for index, other in enumerate(others):
        for name in sorted(facts.keys() | other.keys()):
            if (theirs := other.get(name)) != (ours := facts.get(name)):
                raise ConfigError(name, ours, f"process {index} has {theirs}")
