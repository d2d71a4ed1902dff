"""Read ahead in worker processes without losing the words of an error, or which image killed a worker.

Torch makes a bare RuntimeError of an exception that leaves a worker and takes more than a message. Errors in the data
therefore travel as values and are raised again where the batches are used. A worker that dies says nothing; it has left
the name of the image it began in memory that it shares with its parent.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from wsss.errors import DataError, Interrupted, MachineError, WsssError
from wsss.stopping import SIGNALS

NAME_BYTES = 1024
"""Of a name so many bytes are shared; longer ones are cut."""

MOMENT = 0.5
"""Seconds that a dying worker is waited for."""

_begun: Tensor | None = None
"""In a worker: (NAME_BYTES,) uint8 that its parent sees."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A DataError on its way out of a worker."""

    problem: str
    fix: str


class Guarded(Dataset[Any]):
    """A data set whose broken items are values."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch leaves __len__ to the subclasses

    def __getitem__(self, key: Any) -> Any:
        """The item, or the failure to make it."""
        try:
            return self.dataset[key]
        except DataError as error:
            return Failure(error.problem, error.fix)


def read_ahead(
    dataset: Dataset[Any],
    workers: int,
    *,
    batches: Sampler[list[Any]] | None = None,
    pin_memory: bool = False,
) -> Iterator[Any]:
    """The items of a data set in order, or batches of them where a sampler says which.

    Raises:
        DataError: an item could not be read.
        MachineError: a worker died.
        Interrupted: it was terminated, as a batch system does with all processes of a job.
    """
    options: dict[str, Any] = {"batch_size": None}
    if batches is not None:
        options = {"batch_sampler": batches, "collate_fn": collate}
    begun = torch.zeros(max(1, workers), NAME_BYTES, dtype=torch.uint8)
    begun.share_memory_()  # type: ignore[no-untyped-call]
    loader: DataLoader[Any] = DataLoader(
        Guarded(dataset),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=partial(_begin, begun) if workers else None,
        **options,
    )
    with _own_signals():
        batches_read = iter(loader)
    try:
        for batch in _named_death(batches_read, begun):
            if isinstance(batch, Failure):
                raise DataError(batch.problem, batch.fix)
            yield batch
    finally:  # at once: a traceback may hold the iterator until the program ends
        getattr(batches_read, "_shutdown_workers", lambda: None)()


def reading(name: str) -> None:
    """Called by a data set before it reads an image: the name to tell if that is the end of its process."""
    if _begun is not None:
        content = name.encode(errors="replace")[:NAME_BYTES].ljust(NAME_BYTES, b"\0")
        _begun.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def collate(samples: Sequence[Any]) -> Any:
    """One batch, or the first failure among its samples."""
    failure = next((sample for sample in samples if isinstance(sample, Failure)), None)
    return default_collate(list(samples)) if failure is None else failure


def _begin(begun: Tensor, worker: int) -> None:
    """In a worker; the signals of a terminal reach it too, but it is its parent who stops."""
    global _begun
    for number in SIGNALS:
        if number != signal.SIGTERM:  # with which their owner ends them
            signal.signal(number, signal.SIG_IGN)
    _begun = begun[worker]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep torch's SIGCHLD handler away: it raises wherever the main thread is; `next` finds out within seconds."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None:  # None: not Python's
            signal.signal(signal.SIGCHLD, before)


def _named_death(batches_read: Iterator[Any], begun: Tensor) -> Iterator[Any]:
    """The same batches; what torch says of a dead worker becomes what we say."""
    while True:
        try:
            batch = next(batches_read)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # the latter two where it died while it handed over
            death = _death(batches_read, begun)
            if death is None:
                raise
            raise death from error
        yield batch


def _death(batches_read: Any, begun: Tensor) -> WsssError | None:
    """The error that tells of the first dead worker of torch's iterator; None where all live."""
    workers = getattr(batches_read, "_workers", ())
    for process in workers:
        process.join(MOMENT)  # its pipe closes before it has ended
    worker, process = next(((i, process) for i, process in enumerate(workers) if not process.is_alive()), (0, None))
    if process is None:
        return None
    code = process.exitcode
    if code == -signal.SIGTERM:
        return Interrupted("stopped: a loader process got SIGTERM", "run the same command again, or --resume RUN")
    name = bytes(begun[worker].tolist()).rstrip(b"\0").decode(errors="replace")
    who = f"{name}: the loader process that read it" if name else "a loader process"
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with status {code}"
    return MachineError(
        f"{who} {how}; perhaps the memory does not suffice", "run the same command again with --workers 1"
    )
