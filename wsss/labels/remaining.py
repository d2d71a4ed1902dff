"""Batches of the images that remain to be done, formed as if all did."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from wsss.data.records import Record
from wsss.data.scaled import ScaledImages


def remaining_batches(
    records: Sequence[Record], todo: Collection[str], scales: Sequence[int], stride: tuple[int, int], batch_size: int
) -> ScaledImages:
    """The batches of all records that hold one of these names.

    An image meets the same neighbours whenever it is done, so what was cut short and done again is, to the bit, what
    would have been done at once: the last bits of a matrix product depend on the size of the batch.
    """
    images = ScaledImages(records, scales, stride, batch_size)
    images.batches = [batch for batch in images.batches if any(record.name in todo for record in batch)]
    return images
