"""Several processes that train one run together, by JAX's own engine (Gloo on CPU, NCCL on GPU, ICI on TPU).

Every process draws the same batches, since data are a function of (seed, step), and holds the part of each that its
devices hold. The first one alone writes: the others keep what they would write in a folder of their own, which goes
with them, and read the run's checkpoints. With one process nothing here does anything.
"""

import contextlib
import json
import socket
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from metalearn.cli import Failure
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
            _reach(*address.rsplit(":", 1), timeout)
        jax.distributed.initialize(address, num, index, initialization_timeout=timeout,
                                   heartbeat_timeout_seconds=timeout, shutdown_timeout_seconds=timeout)
    except (RuntimeError, OSError) as error:
        raise Failure(f"process {index} of {num} did not meet the others at {address} within {timeout} s "
                      f"({' '.join(str(error).split())[:150]})") from None


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
