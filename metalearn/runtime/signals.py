"""Signals that ask a run to stop: noted instead of dying, so that it can save first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(BaseException):
    """A signal came while nothing was there to be saved. No Exception, so that nobody takes it for an error."""


class Noted:
    """`with Noted() as stop`: `stop.number` is 0 until a signal comes, then the first one's.

    last   the program ends with the block: schedulers send a signal twice, and the second must not kill on the way out
           what the first has been answered with

    call   what a signal calls, where whoever notes it waits for others

    Outside the main thread (a notebook's worker) signals keep their meaning.
    """

    def __init__(self, last: bool = False):
        self.number, self.last = 0, last
        self.call: Callable[[], None] | None = None
        self._old, self._raises = {}, False

    def __enter__(self) -> Noted:
        for number in NUMBERS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started by nohup
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:
                break
        return self

    def _note(self, number: int, frame) -> None:
        first, self.number = not self.number, self.number or number
        if self.call:
            self.call()
        if first and self._raises:
            raise Interrupted

    @contextlib.contextmanager
    def at_once(self):
        """Inside, a signal ends the block where it stands, by Interrupted; so does one that came before."""
        if self.number:
            raise Interrupted
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def __exit__(self, *_) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_IGN if self.last and self.number else handler)


def name(number: int) -> str:
    return signal.Signals(number).name
