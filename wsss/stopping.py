"""Stopping on a signal: long work continues to its next boundary, saves and exits with status 75.

Outside of such work the program ends at once (`end_on_signals`). A signal that was ignored when the program began, as
Ctrl-C by a shell that starts it in the background and SIGHUP by ``nohup``, stays ignored.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from wsss.errors import Interrupted

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
"""By batch systems before the end of a job's time, by terminals, and at the limit of CPU seconds."""
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

AGAIN = "run the same command again"
CTRL_C = 130
"""Exit status after Ctrl-C outside of work that can be resumed."""


class Stopped(BaseException):
    """A signal other than Ctrl-C has arrived where nothing needs saving; the text is its name."""


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


class EndNow(StopRequest):
    """The signal handler of `end_on_signals`. ``asked`` is the name of the signal that ends the program, or ""."""

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """End the process if modules are being imported, else raise.

        Code that imports may drop an exception (callbacks of importlib, a bare ``except``), and has nothing to undo.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Stopped: another signal, the first one.
        """
        if os.getpid() != self._process:  # a forked process has its own handlers soon
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        earlier, self.asked = self.asked, signal.Signals(number).name
        if _is_importing(frame):
            _end(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if not earlier:
            raise Stopped(self.asked)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch ``SIGNALS`` inside; the work checks the yielded StopRequest at its boundaries."""
    stop = StopRequest()
    outer = signal.getsignal(signal.SIGTERM)
    if isinstance(outer, EndNow):
        stop.asked = outer.asked  # not "" where other code dropped the exception
    before = _handle(stop)
    try:
        yield stop
    finally:
        if isinstance(outer, EndNow):
            outer.asked = stop.asked
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_signals() -> None:
    """Let ``SIGNALS`` end this program with `Stopped` or KeyboardInterrupt, from now on; for programs only."""
    _handle(EndNow())


def finish_despite_signals() -> None:
    """Let this program finish, as its exit status is decided; Ctrl-C still ends it."""
    for number, handler in _handle(signal.SIG_IGN).items():
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL if isinstance(handler, EndNow) else handler)


def ignore_signals(*but: int) -> None:
    """In a helper process: ignore ``SIGNALS``, which terminals and batch systems send to all processes of a job.

    Args:
        but: signals that act as ever.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number in but else signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold ``SIGNALS`` back, also for helper processes that start inside, which call `ignore_signals` first."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending(name: str) -> tuple[str, int]:
    """Problem and exit status of a program that a signal of this name ends, or Ctrl-C ("SIGINT")."""
    if name == "SIGINT":
        return "stopped by Ctrl-C", CTRL_C
    return f"stopped by {name}", Interrupted.exit_status


def _handle(handler: StopRequest | signal.Handlers) -> dict[int, signal._HANDLER]:
    """Install a handler for all signals that are not ignored; returns the handlers before it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: now for number, now in before.items() if now not in (signal.SIG_IGN, None)}
    with suppress(ValueError):  # not in the main thread: signals are left to the caller
        for number in before:
            signal.signal(number, handler)
        return before
    return {}


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end(number: int) -> None:
    problem, status = ending(signal.Signals(number).name)
    with suppress(Exception):
        sys.stderr.flush()
    with suppress(OSError):
        os.write(2, f"error: {problem}\nfix:   {AGAIN}\n".encode())
    os._exit(status)
