"""The program ``wsss`` in processes forked from one that has imported it, which saves seconds of imports.

As a script this file reads orders from standard input, each a JSON line.
``{"wsss": [ARGUMENT, ...], "kill_at": N, "log": FILE, "environment": {...}}`` starts a process and prints its id;
``{"wait": PID, "seconds": S}`` prints how it ended, or null.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

TIMEOUT = 120.0
"""Seconds after which a test that waits has failed."""


class Forked:
    """A running program, in a session of its own, so that a signal can be sent to its loader processes too."""

    def __init__(self, pid: int, log: Path, owner: Warm) -> None:
        self.pid = pid
        self.log = log
        self._owner = owner

    def send(self, number: int, *, to_all: bool = False) -> None:
        with suppress(ProcessLookupError):  # it has ended already
            (os.killpg if to_all else os.kill)(self.pid, number)

    def wait(self, seconds: float = TIMEOUT) -> int:
        """Wait for the end; returns the exit status, or the negative number of the signal that killed it."""
        status = self._owner.ask({"wait": self.pid, "seconds": seconds})
        if status is None:
            self.send(signal.SIGKILL, to_all=True)
            raise TimeoutError(self.error)
        return int(status)

    def wait_for(self, path: Path) -> None:
        """Wait until the program has written a file."""
        self.wait_until(path.is_file)

    def wait_until(self, happens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not happens():
            assert time.monotonic() < deadline, self.error
            time.sleep(0.005)

    @property
    def error(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def error_and_fix(self) -> list[str]:
        """The lines ``error:`` and ``fix:`` at the end of standard error, without these words."""
        return [line[7:] for line in self.error.splitlines() if not line.startswith("more:  ")][-2:]


class Warm:
    """Starts the program by forking."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(
        self, *arguments: object, kill_at: int | None = None, environment: dict[str, str] | None = None
    ) -> Forked:
        """Start ``wsss`` with these arguments; with ``kill_at`` it is killed at the disk operation of that number."""
        self.count += 1
        log = self.folder / f"{self.count}.log"
        words = [str(argument) for argument in arguments]
        order = {"wsss": words, "kill_at": kill_at, "log": str(log), "environment": environment or {}}
        return Forked(int(self.ask(order)), log, self)

    def run(self, *arguments: object, kill_at: int | None = None) -> Forked:
        """Run ``wsss`` to its end; the exit status must be 0."""
        forked = self.start(*arguments, kill_at=kill_at)
        assert forked.wait() == 0, forked.error
        return forked

    def ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=TIMEOUT)


def serve() -> dict[str, Any] | None:
    """Read orders until standard input ends. A forked process returns from here with its order, the first one None."""
    import torch

    import wsss.cli.main
    import wsss.cli.start
    import wsss.cli.terminal
    import wsss.inference.labelling
    import wsss.inference.predicting
    import wsss.training.start  # noqa: F401

    torch.set_num_threads(1)
    for line in iter(sys.stdin.readline, ""):
        order: dict[str, Any] = json.loads(line)
        answer = _how_it_ended(**order) if "wait" in order else os.fork()
        if answer == 0 and "wsss" in order:
            return order
        print(json.dumps(answer), flush=True)
    return None


def _how_it_ended(wait: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(wait, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def run_program(order: dict[str, Any]) -> None:
    """Run ``wsss`` in this process as its console script does."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in its background ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.environ |= order.get("environment", {})
    sys.argv = ["wsss", *order["wsss"]]
    if order["kill_at"] is not None:
        kill_at(order["kill_at"])
    from wsss.cli.start import run

    run()


def kill_at(number: int) -> None:
    """Kill this process at its ``number``-th disk operation: inside a write, at a sync, before or after a rename."""
    from wsss import files

    left = number
    write, fsync, replace = files._Raw.write, os.fsync, Path.replace

    def is_last() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def half_written(raw: files._Raw, data: Any) -> int:
        if is_last():
            write(raw, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(raw, data)

    def unsynced(descriptor: int) -> None:
        if is_last():
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        if is_last():
            os.kill(os.getpid(), signal.SIGKILL)
        result = replace(path, target)
        if is_last():
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    files._Raw.write, os.fsync, Path.replace = half_written, unsynced, renamed  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    mine = serve()
    if mine is not None:
        run_program(mine)
