"""Reading ahead: order, batches, and errors that leave a worker with their words."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, Sampler, dataloader

from wsss import machine
from wsss.config import RunSection
from wsss.data.loading import read_ahead
from wsss.errors import DataError, MachineError


class Numbers(Dataset[Any]):
    """The numbers to ten; 7 is broken, 8 a bug."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: int) -> dict[str, torch.Tensor]:
        if key == 7:
            raise DataError("number 7 is broken", "mend it")
        if key == 8:
            raise ZeroDivisionError("a bug")
        return {"number": torch.tensor(key)}


class Given(Sampler[list[int]]):
    def __init__(self, *batches: list[int]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_batches(workers: int) -> None:
    batches = list(read_ahead(Numbers(), workers, batches=Given([3, 1], [2], [6, 5, 4])))
    assert [batch["number"].tolist() for batch in batches] == [[3, 1], [2], [6, 5, 4]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [None, Given([1, 2], [3, 7], [4, 5])])
def test_a_data_error_arrives_whole_after_what_was_fine(workers: int, batches: Given | None) -> None:
    given = read_ahead(Numbers(), workers, batches=batches)
    fine = 7 if batches is None else 1
    assert [next(given)["number"].tolist() for _ in range(fine)] == ([*range(7)] if batches is None else [[1, 2]])
    with pytest.raises(DataError) as caught:
        next(given)
    assert (caught.value.problem, caught.value.fix) == ("number 7 is broken", "mend it")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_stays_a_bug(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(read_ahead(Numbers(), workers, batches=Given([8])))


class Large(Dataset[Any]):
    """Tensors of a number each; ``broken`` ones cannot be sent to another process."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 6

    def __getitem__(self, key: int) -> Any:
        return Unsendable() if self.broken else {"number": torch.full((100,), key)}


class Unsendable:
    """Pickled once; the second time, in the thread that sends, fails."""

    times = 0

    def __reduce__(self) -> Any:
        Unsendable.times += 1
        if Unsendable.times > 1:
            raise OSError(24, "Too many open files")
        return Unsendable, ()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared memory that is full in the loader processes, as torch reports it."""
    share = torch.Tensor.share_memory_

    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        if multiprocessing.parent_process() is None:
            return share(tensor)
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("batches", [None, Given([3, 1], [2], [5, 4])])
def test_batches_that_do_not_fit_shared_memory(batches: Sampler[list[int]] | None) -> None:
    def numbers(workers: int) -> list[Any]:
        return [batch["number"].tolist() for batch in read_ahead(Large(), workers, batches=batches)]

    assert numbers(2) == numbers(0)


@pytest.mark.usefixtures("poll_often")
def test_a_batch_that_cannot_be_sent_ends_the_wait() -> None:
    with pytest.raises(MachineError, match="left with status 1"):
        list(read_ahead(Large(broken=True), 1))


@pytest.fixture
def poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def test_without_shared_memory_no_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(MachineError, match="no loader process can be started") as caught:
        list(read_ahead(Large(), 2))
    assert caught.value.fix.endswith("--workers 0")
    assert len(list(read_ahead(Large(), 0))) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep it elsewhere")
def test_the_default_follows_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    monkeypatch.setattr(machine, "SHARED_MEMORY", str(tmp_path))
    assert machine.num_workers(RunSection()) == 2
    monkeypatch.setattr(machine, "SHARED_MEMORY", str(tmp_path / "nowhere"))
    assert machine.num_workers(RunSection()) == 0
    assert machine.num_workers(RunSection(workers=1)) == 1
    monkeypatch.setattr(machine, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(machine, "LEAST_SHARED", 1 << 62)
    assert machine.num_workers(RunSection()) == 0
