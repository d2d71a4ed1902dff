"""Where the program begins: signals and standard streams are ready before anything large is imported."""

from __future__ import annotations

import os
import sys

from wsss.stopping import AGAIN, Stopped, end_on_signals, ending, finish_despite_signals
from wsss.waiting import wait_briefly


def run() -> None:
    """Run the program ``wsss``."""
    end_on_signals()
    wait_briefly()
    open_missing_streams()
    sys.argv[1:] = map(with_home, sys.argv[1:])
    try:
        from wsss.cli.log import Output, leave

        sys.stdout = output = Output(sys.stdout)
        try:
            from wsss.cli.main import run as run_program

            run_program()
        except SystemExit as left:
            output.flush()
            if output.failure is not None and not left.code:
                why = output.failure.strerror
                leave(f"standard output cannot be written: {why}; all else is done", "send it elsewhere", 4)
            raise
        except (Stopped, KeyboardInterrupt) as stopped:
            problem, status = ending(str(stopped) or "SIGINT")
            leave(problem, AGAIN, status)
    finally:
        finish_despite_signals()


def with_home(word: str) -> str:
    """A word of the command line with the home folder for "~/", which shells leave in "--data=~/photos"."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + (os.path.expanduser(value) if value.startswith("~/") else value)  # noqa: PTH111


def open_missing_streams() -> None:
    """Open the null device for standard streams that are closed: other files would get their descriptors.

    ``sys.stdout`` stays None, so that `Output` can say that it is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # open as long as the program
