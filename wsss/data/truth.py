"""Truths: the masks that predictions are scored against. Training never opens one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, read_mask, unknown_indices
from wsss.data.parts import Part
from wsss.data.walking import is_file, spelled
from wsss.errors import DataError

if TYPE_CHECKING:
    from wsss.data.records import Record, TaggedSet


class Truth(Protocol):
    """Where the masks of a data set come from; sent to loader processes, so it can be pickled."""

    def has(self, record: Record) -> bool:
        """Whether this image has a mask; it is not opened."""

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The mask of this image, (H, W) uint8 class indices; None where it has none.

        Raises:
            DataError: there is one that cannot be read.
        """


@dataclass(frozen=True, slots=True)
class MaskValues:
    """What the values of mask files mean.

    Attributes:
        offset: added to each value.
        ignore: value whose pixels are ignored; IGNORE_INDEX always is.
    """

    offset: int = 0
    ignore: int | None = None

    def read(self, path: Path, part: Part | None = None) -> NDArray[np.uint8]:
        """The class indices of a mask file or member; those above 254, which no class has, become 254.

        Raises:
            DataError: it cannot be read.
        """
        value_HW = read_mask(path, part)
        if self == CLASS_INDICES:
            return value_HW
        index_V = np.minimum(np.arange(IGNORE_INDEX + 1) + self.offset, IGNORE_INDEX - 1).astype(np.uint8)
        index_V[[IGNORE_INDEX, *([] if self.ignore is None else [self.ignore])]] = IGNORE_INDEX
        return index_V[value_HW]


CLASS_INDICES = MaskValues()
"""Values that are class indices as they are."""


@dataclass(frozen=True, slots=True)
class MaskFolder:
    """A folder of palette PNGs ``NAME.png``; of an image in ``images/`` it may be named without this folder."""

    folder: Path
    values: MaskValues = CLASS_INDICES

    def path(self, record: Record) -> Path | None:
        """The mask file of an image, or None where there is none."""
        names = dict.fromkeys((record.name, record.name.removeprefix("images/")))
        paths = (spelled(self.folder, f"{name}.png") for name in names)
        return next(filter(is_file, paths), None)

    def has(self, record: Record) -> bool:
        """Whether there is a mask file."""
        return self.path(record) is not None

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The class indices of the mask file."""
        path = self.path(record)
        return None if path is None else self.values.read(path)


def truth_place(tagged: TaggedSet, record: Record) -> Path | str:
    """Where the mask of a record is, for messages: its file, or words where it has no file of its own."""
    return tagged.mask_path(record) or f"the mask of {record.name}"


def read_truth(tagged: TaggedSet, record: Record) -> NDArray[np.uint8]:
    """The mask of a record that has one, (H, W) class indices of its set or IGNORE_INDEX.

    Raises:
        DataError: it cannot be read, or holds other class indices.
    """
    truth_HW = tagged.truth(record)
    assert truth_HW is not None
    unknown = unknown_indices(truth_HW, len(tagged.classes))
    if unknown:
        where = truth_place(tagged, record)
        raise DataError(
            f"{where}: holds class index {unknown[0]}, expected 0..{len(tagged.classes)}"
            f" ({', '.join(tagged.classes)}) or {IGNORE_INDEX}",
            f"give {where} the class indices of this data set",
        )
    return truth_HW
