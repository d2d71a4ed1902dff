"""Finish images while the next ones are computed: a pool of threads, and a function that other processes run.

Threads are enough for what releases the interpreter lock (torch, encoding, disks). What holds it runs in a process,
for which a thread of the pool waits::

    with Pool(2) as pool, Processes(heavy, 2) as processes:
        jobs = ((path.name, partial(finish, path, processes)) for path in paths)
        for result in pool.run(jobs):
            ...

The processes are fresh interpreters: nothing is forked beside the threads of torch, and they import no more than the
function needs.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType, TracebackType
from typing import IO, Any, Generic, ParamSpec, TypeVar, cast

from wsss.errors import Interrupted, MachineError

WRITERS = 2
"""Threads beside those that wait for a process."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Pool:
    """Threads that run jobs; results come in the order of the jobs.

    Leaving the context cancels what has not begun and waits for what has. Inside it SIGTERM unwinds the main thread
    as Ctrl-C does, unless somebody handles it already, and becomes Interrupted at the end.

    Args:
        waiting: threads that wait for a process most of their time; some more are there to write.
    """

    def __init__(self, waiting: int = 0) -> None:
        threads = waiting + WRITERS
        self.in_flight = 2 * threads
        """At most so many jobs are begun or wait, so memory does not grow with their number."""
        self._threads = ThreadPoolExecutor(threads)
        self._handles_sigterm = False
        self._terminated = False

    def __enter__(self) -> Pool:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)
            self._handles_sigterm = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._threads.shutdown(cancel_futures=True)
        finally:
            if self._handles_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if self._terminated:
                raise Interrupted("stopped by SIGTERM", "run the same command again") from None

    def run(self, jobs: Iterable[tuple[str, Callable[[], Result]]]) -> Iterator[Result]:
        """Take named jobs, lazily and in the calling thread, and yield their results in order.

        Raises:
            Exception: that of the first job in order to fail, with a note of its name.
        """
        pending: deque[tuple[str, Future[Result]]] = deque()
        for name, job in jobs:
            pending.append((name, self._threads.submit(job)))
            while pending and (len(pending) >= self.in_flight or pending[0][1].done()):
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
        raise KeyboardInterrupt


class Processes(Generic[Parameters, Result]):
    """A function that other processes run, for the threads of a pool; use it as a context.

    The processes end with the context, whatever they do then, and with the process that started them. Ctrl-C does not
    reach them.

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
                with suppress(OSError):  # a call that was cut short has left half its arguments in the buffer
                    cast(IO[bytes], stream).close()

    def call(self, name: str, /, *arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        """Run the function in the next process that is free.

        Args:
            name: of the image, for the words of an error.

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
        finally:
            self._idle.put(worker)  # a dead one too: nobody shall wait for it
        if failure is not None:
            raise RuntimeError(f"{name}: {self._function.__name__} failed in its process\n{failure}")
        return cast(Result, result)

    def _died(self, name: str, worker: subprocess.Popen[bytes]) -> MachineError:
        """The first death, of which all later ones may be consequences."""
        with self._lock:
            if self._death is None:
                worker.kill()  # in case that it lives and talks nonsense
                status = worker.wait()
                how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"left with status {status}"
                self._death = MachineError(
                    f"{name}: the process of {self._function.__name__} {how}; perhaps the memory does not suffice",
                    "run the same command again with --workers 1",
                )
            return self._death


def serve() -> None:
    """Be such a process: read the function, then arguments, from standard input; write results to standard output."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system sends it to all; the owner ends this process
    calls, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not come between
    with suppress(EOFError, OSError):  # the caller is gone
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
    """An interpreter that finds modules where this one does and is in no terminal's foreground group."""
    code = "import sys; sys.path[:] = sys.argv[1:]; from wsss.pool import serve; serve()"
    worker = subprocess.Popen(
        [sys.executable, "-c", code, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    stdin = cast(IO[bytes], worker.stdin)
    with suppress(OSError):  # the first call tells of its death
        stdin.write(pickle.dumps(function))
        stdin.flush()
    return worker


def _result(name: str, future: Future[Result]) -> Result:
    try:
        return future.result()
    except Exception as error:
        error.add_note(f"while working on {name}")
        raise
    finally:
        del future  # it holds the error, whose traceback would hold it, and with it the jobs and their loader
