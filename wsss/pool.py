"""A pool of threads that finishes images while the next ones are computed.

Threads are enough for what releases the interpreter lock: torch, encoding, disks. ``processes.py`` is for the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

WRITERS = 2
"""Threads beside those that wait for a process."""
MOST_PIXELS = 1 << 25
"""Pixels that unfinished jobs may hold together while the next job is made: two photos of 16 megapixels, or many small
ones. A larger photo is finished before the next one is read."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Job(Generic[Result]):
    """What remains to be done for an image.

    Attributes:
        name: name of the image, for error messages.
        run: called in a thread.
        pixels: of the arrays that it holds; bounds how many jobs are held at one time.
    """

    name: str
    run: Callable[[], Result]
    pixels: int = 0


class Pool:
    """Threads that run jobs; results come in the order of the jobs.

    Leaving the context cancels the jobs that have not started and waits for the others.

    Args:
        waiting: threads that mostly wait for a process; ``WRITERS`` more are there to write.

    Attributes:
        in_flight: largest number of jobs that run or wait, so memory does not grow with the number of jobs. It is
            smaller for jobs of many pixels: see ``MOST_PIXELS``.
    """

    def __init__(self, waiting: int = 0) -> None:
        threads = waiting + WRITERS
        self.in_flight = 2 * threads
        self._threads = ThreadPoolExecutor(threads)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def run(self, jobs: Iterable[Job[Result]]) -> Iterator[Result]:
        """Take jobs, lazily and in the calling thread, and yield their results in order.

        Raises:
            Exception: that of the first job in order to fail, with a note of its name.
        """
        pending: deque[tuple[str, int, Future[Result]]] = deque()
        for job in jobs:
            pending.append((job.name, job.pixels, self._threads.submit(job.run)))
            del job  # it holds the arrays of an image
            while pending and (
                len(pending) >= self.in_flight
                or sum(pixels for _, pixels, _ in pending) > MOST_PIXELS
                or pending[0][2].done()
            ):
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())


def _result(name: str, pixels: int, future: Future[Result]) -> Result:
    try:
        return future.result()
    except Exception as error:
        error.add_note(f"while working on {name}")
        raise
    finally:
        del future  # its error has a traceback, which would keep the jobs and their loader alive
