"""Reading ahead: order, batches, and errors that leave a worker with their words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, Sampler

from wsss.data.loading import read_ahead
from wsss.errors import DataError


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
