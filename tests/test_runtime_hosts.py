"""Several processes: what is refused. That two train as one, and what happens when one goes, is tests/faults, R13."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from metalearn.cli import Failure
from metalearn.runtime import hosts
from metalearn.validate import ConfigError


@pytest.mark.parametrize("flags, words", [
    (("a:1", 0, 0, 9), "--processes=0: must be 1 or above"), (("a:1", 2, 2, 9), "--process=2: must be from 0 to 1"),
    (("a:1", 2, 0, 0), "--join_timeout=0"), (("nowhere", 2, 0, 9), "--coordinator=nowhere: must be HOST:PORT"),
    (("", 2, 1, 9), "--coordinator=")])
def test_wrong_flags_are_refused_before_anything_waits(flags, words):
    with pytest.raises(ConfigError, match=words):
        hosts.join(*flags)


def test_an_absent_coordinator_is_one_line_with_its_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(Failure, match=f"process 1 of 2 did not meet the others at {address} within 1 s"):
        hosts.join(address, 2, 1, 1)
    assert time.monotonic() - began < 20


def test_one_process_asks_nobody(tmp_path):
    hosts.join("", 1, 0, 9)
    hosts.agree({"config.seed": "0"})
    assert hosts.first() and hosts.largest(7) == 7
    with hosts.writable(str(tmp_path)) as path:
        assert path == str(tmp_path)


def test_facts_that_differ_between_processes_are_named(monkeypatch):
    """What the others have is made up: the second has another rate."""
    def gather(array):
        if array.ndim == 0:
            return np.array([array, array])
        other = bytes(array).replace(b"0.001", b"0.002")
        return np.stack([array, np.frombuffer(other, np.uint8)])

    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", gather)
    with pytest.raises(ConfigError, match="config.optim.lr=0.001: process 1 has 0.002"):
        hosts.agree({"config.seed": "0", "config.optim.lr": "0.001"})
    hosts.agree({"config.seed": "0"})


LEAVING = """
import sys, threading, time
wait = threading.Event.wait  # the thread that says that this process is there then says it all the time
threading.Event.wait = lambda self, timeout=None: wait(self, 0 if timeout == 1 else timeout)
from metalearn.runtime import hosts
hosts.join(sys.argv[1], 2, int(sys.argv[2]), 30)
time.sleep(0.2)
"""


def test_a_process_that_is_done_leaves_without_an_abort():
    """Of a thread inside JAX's client at exit, glibc says 'exception not rethrown': 9 of 12 such pairs aborted."""
    root = pathlib.Path(__file__).parent.parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    pair = [subprocess.Popen([sys.executable, "-c", LEAVING, address, str(i)], env=env, stderr=subprocess.PIPE)
            for i in range(2)]
    said = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
