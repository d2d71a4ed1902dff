"""Where the program begins: signals and standard streams are ready before anything large is imported."""

from __future__ import annotations

import os
import sys

from wsss.launcher import end_where_joined
from wsss.stopping import AGAIN, Stopped, end_on_signals, ending, finish_despite_signals
from wsss.waiting import wait_briefly


def run() -> None:
    """Run the program ``wsss``."""
    try:
        _run()
    except BaseException as error:
        end_where_joined(error)
        raise


def _run() -> None:
    end_on_signals()
    wait_briefly()
    open_missing_streams()
    sys.argv[1:] = map(with_home, sys.argv[1:])
    try:
        from wsss.cli.log import Output, leave

        sys.stdout = output = Output(sys.stdout)
        try:
            from wsss.cli.main import run as run_program

            refuse_lost_folder()
            run_program()
        except SystemExit as left:
            output.flush()
            if output.failure is not None and not left.code:
                why = output.failure.strerror
                leave(f"standard output cannot be written: {why}; all else is done", "send it elsewhere", 4, "machine")
            raise
        except ImportError as error:
            cause = lost_library(str(error))
            if cause is None:
                raise
            leave(*cause, 4, "machine")
        except (Stopped, KeyboardInterrupt) as stopped:
            problem, status = ending(str(stopped) or "SIGINT")
            leave(problem, AGAIN, status, "interrupted")
    finally:
        finish_despite_signals()


def refuse_lost_folder() -> None:
    """Leave where the working folder was removed: libraries fail there in ways of their own."""
    from wsss.cli.log import leave

    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        leave(
            "the working folder is no longer there",
            "cd to a folder that exists, then run the same command again",
            4,
            "machine",
        )


def lost_library(text: str) -> tuple[str, str] | None:
    """Problem and remedy of an ``ImportError`` that this machine causes; None for others, which are bugs."""
    if "failed to map segment" in text or "Cannot allocate memory" in text:
        return f"too little memory to load a library ({text})", "raise the limit: ulimit -v unlimited, or sbatch --mem"
    if "cannot open shared object file" in text:
        library = text.split(":")[0]
        remedy = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}.get(
            library, f"the package of {library}"
        )
        more = ", or pip install opencv-python-headless" if library in ("libGL.so.1", "libgthread-2.0.so.0") else ""
        return f"a system library is missing: {library}", f"apt-get install {remedy}{more}"
    return None


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
