"""Read batches ahead in worker processes, with the messages of errors and the image at which a worker died.

Torch re-raises an exception of a worker as RuntimeError if its constructor takes several arguments. A ``DataError`` is
therefore returned as a value, and raised again where the batches are used. Before a worker reads an image, it writes
the name to memory that it shares with its parent, so that the parent can name the image if the worker dies.

Torch sends tensors through shared memory, which containers often limit to 64 MiB, from a thread of the worker. An error
in that thread loses the batch, and the parent waits for ever. So a worker moves a batch to shared memory itself and
where that is full it sends the bytes; any other error of the thread ends the worker.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, default_convert, get_worker_info

from wsss.errors import DataError, Interrupted, MachineError, WsssError
from wsss.stopping import held_signals, ignore_signals

NAME_BYTES = 1024
"""Bytes of a name that are shared; longer names are cut."""

EXIT_SECONDS = 0.5
"""How long to wait for a dying worker to end."""

_begun: Tensor | None = None
"""In a worker: (NAME_BYTES,) uint8, shared with its parent."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A DataError as a value, returned by a worker."""

    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class _Copied:
    """What a worker read, pickled, where shared memory is full."""

    content: bytes


@dataclass(frozen=True, slots=True)
class _Send:
    """The ``collate_fn`` of the loader: what a worker sends of the items of a batch."""

    make: Callable[[Any], Any]

    def __call__(self, items: Any) -> Any:
        """The batch, in a worker in shared memory; or the items where that is full."""
        if get_worker_info() is None:
            return self.make(items)
        try:
            batch = self.make(items)
            _Share(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(batch)
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return _Copied(pickle.dumps(items, pickle.HIGHEST_PROTOCOL))
        return batch


class _Share(pickle.Pickler):
    """Moves every tensor of an object to shared memory; what it writes is of no use."""

    def persistent_id(self, value: Any) -> object:
        """Called for every part of the object; a tensor is not pickled."""
        if isinstance(value, Tensor):
            value.share_memory_()  # type: ignore[no-untyped-call]
            return 0
        return None


class _Guarded(Dataset[Any]):
    """A data set that returns a ``_Failure`` instead of raising DataError."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch leaves __len__ to the subclasses

    def __getitem__(self, key: Any) -> Any:
        """The item, or why it cannot be made."""
        try:
            return self.dataset[key]
        except DataError as error:
            return _Failure(error.problem, error.fix)


def read_ahead(
    dataset: Dataset[Any],
    workers: int,
    *,
    batches: Sampler[list[Any]] | None = None,
    pin_memory: bool = False,
) -> Generator[Any]:
    """The items of a data set in order, or batches of them where a sampler is given.

    Raises:
        DataError: an item could not be read.
        MachineError: a worker died, or none can be started.
        Interrupted: a worker got SIGTERM, which a batch system sends to all processes of a job.
    """
    send = _Send(default_convert if batches is None else collate)
    options: dict[str, Any] = {"batch_size": None} if batches is None else {"batch_sampler": batches}
    begun = torch.zeros(max(1, workers), NAME_BYTES, dtype=torch.uint8)
    with _own_signals(), held_signals(), warnings.catch_warnings(), _no_shared_memory(workers):
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: the user chose them
        if workers:
            begun.share_memory_()  # type: ignore[no-untyped-call]
        loader: DataLoader[Any] = DataLoader(
            _Guarded(dataset),
            num_workers=workers,
            pin_memory=pin_memory,
            collate_fn=send,
            worker_init_fn=partial(_begin, begun) if workers else None,
            **options,
        )
        batches_read = iter(loader)
    try:
        for batch in _named_death(batches_read, begun):
            if isinstance(batch, _Copied):
                batch = send.make(pickle.loads(batch.content))
            if isinstance(batch, _Failure):
                raise DataError(batch.problem, batch.fix)
            yield batch
    finally:  # now: a traceback may keep the iterator alive until the program ends
        getattr(batches_read, "_shutdown_workers", lambda: None)()


def reading(name: str) -> None:
    """To be called by a data set before it reads an image: its name is reported if the process dies."""
    if _begun is not None:
        content = name.encode(errors="replace")[:NAME_BYTES].ljust(NAME_BYTES, b"\0")
        _begun.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def collate(samples: Sequence[Any]) -> Any:
    """One batch, or the first failure among its samples."""
    failure = next((sample for sample in samples if isinstance(sample, _Failure)), None)
    return default_collate(list(samples)) if failure is None else failure


def _begin(begun: Tensor, worker: int) -> None:
    """Start of a worker. It ignores the signals that a terminal sends to all processes: its parent handles them."""
    global _begun
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]  # the hook for errors of its thread
    ignore_signals(signal.SIGTERM)  # its parent ends it with SIGTERM
    _begun = begun[worker]


def _end(error: Exception, item: Any) -> None:
    """End a worker that cannot send a batch; its parent would wait for it."""
    traceback.print_exception(error)
    os._exit(1)


@contextmanager
def _no_shared_memory(workers: int) -> Iterator[None]:
    """Turn the errors of starting workers, which need shared memory and processes, into MachineError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not workers:
            raise
        raise MachineError(
            f"no loader process can be started ({error}); they need processes and shared memory (/dev/shm)",
            "run the same command again with --workers 0",
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the SIGCHLD handler that torch replaces: torch's raises at any place of the main thread.

    Without it, the next batch raises within seconds of a worker's death.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None:  # None: a handler that was not set by Python
            signal.signal(signal.SIGCHLD, before)


def _named_death(batches_read: Iterator[Any], begun: Tensor) -> Iterator[Any]:
    """The same batches; an error of torch about a dead worker is replaced by ours."""
    while True:
        try:
            batch = next(batches_read)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # OSError and EOFError: it died while it sent a batch
            death = _death(batches_read, begun)
            if death is None:
                raise
            raise death from error
        yield batch


def _death(batches_read: Any, begun: Tensor) -> WsssError | None:
    """The error that names the first dead worker of torch's iterator; None if all are alive."""
    workers = getattr(batches_read, "_workers", ())
    for process in workers:
        process.join(EXIT_SECONDS)  # its pipe closes before it has ended
    worker, process = next(((i, process) for i, process in enumerate(workers) if not process.is_alive()), (0, None))
    if process is None:
        return None
    code = process.exitcode
    if code == -signal.SIGTERM:
        return Interrupted("stopped: a loader process got SIGTERM", "run the same command again, or --resume RUN")
    name = bytes(begun[worker].tolist()).rstrip(b"\0").decode(errors="replace")
    who = f"{name}: the loader process that read it" if name else "a loader process"
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with status {code}"
    why = DEATHS.get(-code, "")
    return LoaderDied(f"{who} {how}{why}", "run the same command again with --workers 1")


class LoaderDied(MachineError):
    """A loader process died of something else than a request to stop."""

    kind = "loader-died"


DEATHS = {
    signal.SIGKILL: "; perhaps the memory does not suffice",
    signal.SIGBUS: "; perhaps /dev/shm is full (df -h /dev/shm)",
    signal.SIGSEGV: "; a library crashed there",
}
"""What a signal that killed a loader process may mean."""
