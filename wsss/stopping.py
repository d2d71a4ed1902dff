"""Asked to stop by a signal: long work goes on to its next boundary, saves and leaves with status 75."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wsss.errors import Interrupted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Whether a signal asked to stop, and which."""

    def __init__(self) -> None:
        self.asked = ""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; Ctrl-C after another request stops at once."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def leave_if_asked(self, where: str, fix: str) -> None:
        """Stop here, where all that was done is on the disk.

        Raises:
            Interrupted: a signal asked.
        """
        if self.asked:
            raise Interrupted(f"stopped by {self.asked} {where}", fix)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGUSR1 inside; the work leaves at its next boundary."""
    stop = StopRequest()
    try:
        before = {number: signal.signal(number, stop) for number in SIGNALS}
    except ValueError:  # not in the main thread: whoever runs it there handles signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
