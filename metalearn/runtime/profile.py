"""A trace of some updates, for XProf or Perfetto to show: `train --profile=N`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import jax

from metalearn import cli
from metalearn.types import PyTree

WARM = 2  # calls before the trace: the first compiles


class Profile:
    """`with profile.call(num, state)` around each call of num updates traces `updates` of them or a little more, in
    whole calls; 0: none. `state()` is what the call leaves, which is waited for. Use as a context: it ends the trace.

    The trace lies in `folder`/plugins/profile/TIME. What is computed stays the same to the bit.
    """

    def __init__(self, folder: str, updates: int):
        self.folder, self.left, self._calls, self._tracing = folder, updates, 0, False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_) -> None:
        self._stop()
        if self.left > 0:
            cli.say(f"warning: the run ended {self.left} updates too early for its trace; it begins after {WARM} calls")

    @contextlib.contextmanager
    def call(self, num: int, state: Callable[[], PyTree]) -> Iterator[None]:
        """Traces what is done inside, where it is its turn."""
        if self.left > 0 and self._calls == WARM:
            jax.block_until_ready(state())
            jax.profiler.start_trace(self.folder)
            self._tracing = True
        yield
        self._calls += 1
        if self._tracing:
            self.left -= num
            if self.left <= 0:
                jax.block_until_ready(state())
                self._stop()

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            cli.say(f"trace: {os.path.relpath(self.folder)} (xprof --logdir={os.path.relpath(self.folder)})")
