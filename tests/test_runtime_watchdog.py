"""A call that hangs ends the process, with all stacks; one that compiles, or a process that was stopped, does not."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from metalearn import cli, train
from metalearn.runtime.watchdog import Watchdog

HANGING = """
import sys, time
from metalearn.runtime import watchdog
watchdog.LEAST, watchdog.TICK = 0.5, 0.02
watch = watchdog.Watchdog(3)
for num, seconds in ((5, 1), (5, 0.01), (5, 0.01), (2, 1)):     # the first of each num compiles
    with watch.call(num):
        time.sleep(seconds)
print("hangs", flush=True)
with watch.call(5):
    time.sleep(60)
"""


def test_a_call_that_hangs_ends_the_process_with_all_stacks():
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", HANGING], **pipes)
    assert process.stdout.readline() == "hangs\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.1)
    assert process.poll() is None, "a second in which it was stopped is not a second in which it hung"
    _, err = process.communicate(timeout=20)
    assert process.returncode == cli.EXIT_FAILURE
    assert 'File "<string>"' in err and "in _watch" in err and "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: updates did not come back within 0 s (--watchdog=3)")


STILL = """
import time
from metalearn.runtime import watchdog
watchdog.STILL, watchdog.TICK = 0.5, 0.02
watch, began = watchdog.Watchdog(3, alone=True), time.monotonic()
time.sleep(1)       # between calls
with watch.call(5):
    while time.monotonic() < began + 2:     # compiles
        pass
print("hangs", flush=True)
with watch.call(2):     # the first of its num
    time.sleep(60)
"""


def test_a_first_call_that_uses_no_processor_ends_it_too():
    done = subprocess.run([sys.executable, "-c", STILL], capture_output=True, text=True, timeout=30)
    assert done.returncode == cli.EXIT_FAILURE and done.stdout == "hangs\n"
    assert done.stderr.splitlines()[-1].startswith("error: updates stood still for 0 s (XLA_FLAGS=")


def test_0_is_never():
    before = threading.active_count()
    with Watchdog(0).call(1):
        assert threading.active_count() == before


@pytest.mark.parametrize("value", ["-1", "nan", "x"])
def test_a_multiple_that_is_none_is_refused(monkeypatch, capsys, value):
    monkeypatch.setattr(sys, "argv", ["train", "--config=none", f"--workdir={os.devnull}", f"--watchdog={value}"])
    with pytest.raises(SystemExit) as stop:
        cli.main(train.main)
    assert stop.value.code == cli.EXIT_CONFIG and "--watchdog" in capsys.readouterr().err
