"""What masks and tags of the same images say differently, once the masks are counted: a score may then mean nothing.

Shape suffixes: C classes with the background, K without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsss.data.records import Record, TaggedSet
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.reporting import first_few


@dataclass(frozen=True, slots=True)
class TagCounts:
    """Images that have each class as a tag, and those of which it is unknown: (K,) int64."""

    tagged_K: NDArray[np.int64]
    unknown_K: NDArray[np.int64]

    @classmethod
    def of(cls, records: Iterable[Record], classes: int) -> TagCounts:
        """Count the tags of records."""
        counts = np.zeros((2, classes), np.int64)
        for record in records:
            counts[0, list(record.tags)] += 1
            counts[1, list(record.unknown)] += 1
        return cls(*counts)


def odd_truth(matrix: ConfusionMatrix, tagged: TaggedSet) -> list[str]:
    """See ``odd_classes``; of all images of a split that have a mask."""
    records = (record for record in tagged.records if tagged.has_truth(record))
    tags = TagCounts.of(records, len(tagged.classes))
    return odd_classes(matrix, tags, tagged.classes, str(tagged.root))


def odd_classes(matrix: ConfusionMatrix, tags: TagCounts, classes: Sequence[str], root: str) -> list[str]:
    """Remarks on classes that the tags of scored images name and no mask holds, and the reverse; none without tags.

    Masks of 0 and 255 alone, or of another order of classes, are found so.

    Args:
        matrix: of the scored images.
        tags: of the same images.
        classes: names of the classes, without the background.
        root: the data folder, for the remedy.
    """
    if not tags.tagged_K.any():
        return []
    tagged = {int(k) for k in np.flatnonzero(tags.tagged_K)}
    named = tagged | {int(k) for k in np.flatnonzero(tags.unknown_K)}
    pixels_C = matrix.counts.sum(axis=1)
    held = {k for k in range(len(classes)) if pixels_C[k + 1]}
    mend = f"; wsss data check {root} compares them"
    remarks = []
    if missing := tagged - held:
        names = _names(missing, classes)
        all_of_them = " of any class" if not held else ""
        remarks.append(f"no mask holds a pixel{all_of_them or f' of {names}'}, but tags name {names}{mend}")
    if more := held - named:
        names = _names(more, classes)
        remarks.append(f"masks hold {names}, but no tag of these images names it{mend}")
    return remarks


def _names(indices: set[int], classes: Sequence[str]) -> str:
    return first_few([repr(classes[k]) for k in sorted(indices)], 5)
