"""Threads for work on many files: decoders and disks release the interpreter lock, so that threads help."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from wsss.cores import usable_cores

THREADS = min(8, 2 * usable_cores())
AHEAD = 4
"""Calls a thread that are begun or wait; memory does not grow with the number of items."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """The results of a function for many items, in their order.

    Ctrl-C, or closing the iterator, cancels the calls that have not begun and waits for the few that run.
    """
    pool = ThreadPoolExecutor(THREADS)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= AHEAD * THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Budget:
    """An amount that threads share: each waits until its part is free. One alone may take more than there is.

    Args:
        amount: of bytes or pixels, for example.
    """

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def part(self, amount: int) -> Iterator[None]:
        """Hold a part of it in the context."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + amount <= self._amount)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
