"""Stopping on a signal: long work continues to its next boundary, saves and exits with status 75."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wsss.errors import Interrupted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """The signal handler of `stop_requests`. ``asked`` is the name of the last signal, or "" before the first."""

    def __init__(self) -> None:
        self.asked = ""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Store the name of the signal; Ctrl-C after an earlier signal raises KeyboardInterrupt."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def leave_if_asked(self, where: str, fix: str) -> None:
        """Call this at a boundary, where all results so far are on the disk.

        Args:
            where: how far the work came, for the message ("after 3 of 9 images").
            fix: the command that continues.

        Raises:
            Interrupted: a signal has arrived.
        """
        if self.asked:
            raise Interrupted(f"stopped by {self.asked} {where}", fix)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGUSR1 inside; the work checks the yielded StopRequest at its boundaries."""
    stop = StopRequest()
    try:
        before = {number: signal.signal(number, stop) for number in SIGNALS}
    except ValueError:  # not in the main thread: signals are left to the caller
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
