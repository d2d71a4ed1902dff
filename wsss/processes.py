"""A function that other processes run, for code that holds the interpreter lock.

Threads wait for the results (``pool.py``)::

    with Pool(2) as pool, Processes(heavy, 2) as processes:
        jobs = (Job(path.name, partial(finish, path, processes)) for path in paths)
        for result in pool.run(jobs):
            ...

The processes are fresh interpreters: nothing is forked beside the threads of torch, and they import no more than the
function needs. They end at once with the context, and with the process that started them even where that is killed.
``concurrent.futures`` cannot say which call ended a process, cannot kill its workers before Python 3.14, and they
outlive a parent that is killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Generic, ParamSpec, TypeVar, cast

from wsss.errors import MachineError
from wsss.stopping import held_signals, ignore_signals

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Processes(Generic[Parameters, Result]):
    """Processes that run one function; use it as a context. Ctrl-C in a terminal does not reach them.

    Args:
        function: one that can be imported; its module should import little.
        count: processes; 0 runs the function in the thread that calls it.
    """

    def __init__(self, function: Callable[Parameters, Result], count: int) -> None:
        self.count = count
        self._function = function
        self._workers = [_start(function) for _ in range(count)]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._death: MachineError | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Processes[Parameters, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                with suppress(OSError):  # a call that was cut short left part of its arguments in the buffer
                    cast(IO[bytes], stream).close()

    def call(self, name: str, /, *arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        """Run the function in the next process that is free.

        Args:
            name: name of the image, for error messages.

        Raises:
            MachineError: a process died.
            RuntimeError: the function failed in its process; the text holds its traceback.
        """
        if not self.count:
            return self._function(*arguments, **keywords)
        message = pickle.dumps((arguments, keywords), pickle.HIGHEST_PROTOCOL)
        worker = self._idle.get()
        try:
            stdin = cast(IO[bytes], worker.stdin)
            stdin.write(message)
            stdin.flush()
            result, failure = pickle.load(cast(IO[bytes], worker.stdout))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            raise self._died(name, worker) from None
        except BaseException:  # the next call would read the rest of this reply
            worker.kill()
            raise
        finally:
            self._idle.put(worker)  # a dead one too, so that no caller blocks
        if failure is not None:
            raise RuntimeError(f"{name}: {self._function.__name__} failed in its process\n{failure}")
        return cast(Result, result)

    def _died(self, name: str, worker: subprocess.Popen[bytes]) -> MachineError:
        """The error of the first process that died; later deaths may be its consequences."""
        with self._lock:
            if self._death is None:
                worker.kill()  # in case it is alive but sent an invalid reply
                status = worker.wait()
                how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"left with status {status}"
                self._death = MachineError(
                    f"{name}: the process of {self._function.__name__} {how}; perhaps the memory does not suffice",
                    "run the same command again with --workers 1",
                )
            return self._death


def serve() -> None:
    """Run in such a process: read the function, then its arguments, from standard input; write results to stdout."""
    ignore_signals()  # the parent ends this process
    calls, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the function prints goes to standard error
    with suppress(EOFError, OSError):  # the parent has ended
        function = pickle.load(calls)
        while True:
            arguments, keywords = pickle.load(calls)
            answer: tuple[Any, str | None]
            try:
                answer = function(*arguments, **keywords), None
            except Exception:
                answer = None, traceback.format_exc()
            results.write(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
            results.flush()


def _start(function: Callable[..., Any]) -> subprocess.Popen[bytes]:
    """A fresh interpreter with the module path of this one, in a session of its own, which Ctrl-C does not reach."""
    code = "import sys; sys.path[:] = sys.argv[1:]; from wsss.processes import serve; serve()"
    with held_signals():
        worker = subprocess.Popen(
            [sys.executable, "-c", code, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    stdin = cast(IO[bytes], worker.stdin)
    with suppress(OSError):  # it has died; the first call raises the error
        stdin.write(pickle.dumps(function))
        stdin.flush()
    return worker
