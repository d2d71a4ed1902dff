"""Read ahead in worker processes without losing the words of an error.

Torch makes a bare RuntimeError of an exception that leaves a worker and takes more than a message. Errors in the data
therefore travel as values and are raised again where the batches are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from wsss.errors import DataError


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
    dataset: Dataset[Any], workers: int, *, batches: Sampler[list[Any]] | None = None, pin_memory: bool = False
) -> Iterator[Any]:
    """The items of a data set in order, or batches of them where a sampler says which.

    Raises:
        DataError: an item could not be read.
    """
    options: dict[str, Any] = {"batch_size": None}
    if batches is not None:
        options = {"batch_sampler": batches, "collate_fn": collate}
    loader: DataLoader[Any] = DataLoader(Guarded(dataset), num_workers=workers, pin_memory=pin_memory, **options)
    for batch in loader:
        if isinstance(batch, Failure):
            raise DataError(batch.problem, batch.fix)
        yield batch


def collate(samples: Sequence[Any]) -> Any:
    """One batch, or the first failure among its samples."""
    failure = next((sample for sample in samples if isinstance(sample, Failure)), None)
    return default_collate(list(samples)) if failure is None else failure
