"""Against a call that never comes back: the stacks of all threads are printed and the process ends."""

import collections
import contextlib
import faulthandler
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator

from metalearn.cli import EXIT_FAILURE

LEAST, STILL, TICK = 60.0, 60.0, 1.0  # seconds: what no call is ended before; without work; how often it is looked at


class Watchdog:
    """`with watchdog.call(num)` around a call of num updates ends the process, with exit code 1, where that takes
    longer than `multiple` times the median of such calls, and LEAST; 0: never.

    alone   calls are computed by this process alone (on CPU): one that uses no processor for STILL seconds hangs

    Else a call is not watched when it is the first of its num, which compiles. Time is counted in ticks of a thread of
    this process, so a process that is stopped (a shell's Ctrl-Z, a scheduler) or starved does not count as hanging.
    """

    def __init__(self, multiple: float, alone: bool = False):
        self.multiple, self._still = multiple, STILL if alone else math.inf
        self._limit, self._ticks = 0.0, 0  # no limit: no call
        self._seconds: dict[int, collections.deque] = {}
        if multiple:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def call(self, num: int) -> Iterator[None]:
        """Watches what is done inside."""
        before, began = self._seconds.get(num), time.monotonic()
        self._ticks, self._limit = 0, max(LEAST, self.multiple * statistics.median(before)) if before else math.inf
        try:
            yield
        finally:
            self._limit = 0.0
        if before is None:
            self._seconds[num] = collections.deque(maxlen=100)
        else:
            before.append(time.monotonic() - began)

    def _watch(self) -> None:
        idle, spent = 0, 0.0
        while True:
            time.sleep(TICK)
            self._ticks, limit, before, spent = self._ticks + 1, self._limit, spent, time.process_time()
            idle = idle + 1 if limit and spent - before < TICK / 100 else 0
            if idle * TICK > self._still:
                why = f"stood still for {self._still:.0f} s (XLA_FLAGS=--xla_cpu_multi_thread_eigen=false may help)"
            elif limit and self._ticks * TICK > limit:
                why = f"did not come back within {limit:.0f} s (--watchdog={self.multiple:g})"
            else:
                continue
            faulthandler.dump_traceback()
            print(f"error: updates {why}; above is where every thread stood. The same command goes on from the last "
                  "checkpoint", file=sys.stderr, flush=True)
            os._exit(EXIT_FAILURE)
