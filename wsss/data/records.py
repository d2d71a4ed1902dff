"""What is known of an image without opening it: where it lies and which classes its tags name.

A record never knows its mask. Masks are looked up by ``TaggedSet.mask_path``, which only evaluation calls,
so that training and labelling run with the mask folder deleted.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_NAMED = 25
"""Classes that a summary names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One image and its tags.

    Attributes:
        name: unique in its set, "/"-separated and without a suffix; outputs are called after it.
        image: path of the image file.
        tags: sorted indices into the class names of the set, from 0; class ``k`` has class index ``k + 1``
            in label maps. Empty where the image is known to hold none of the classes.
    """

    name: str
    image: Path
    tags: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedSet:
    """The records of one split, in a stable order.

    Attributes:
        root: the data folder.
        split: its name, for reports; "all" where a data set has no splits.
        classes: foreground class names; class index 0 is the background.
        records: sorted as the split file lists them.
        mask_folder: where masks lie, for scoring; None where there are none.
    """

    root: Path
    split: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    mask_folder: Path | None = None

    def __len__(self) -> int:
        return len(self.records)

    def present(self, record: Record) -> NDArray[np.bool_]:
        """Image-level label of a record: (K,) bool."""
        present_K = np.zeros(len(self.classes), dtype=np.bool_)
        present_K[list(record.tags)] = True
        return present_K

    def images_by_class(self) -> dict[str, int]:
        """How many records have each class, in the order of the classes."""
        counts = Counter(tag for record in self.records for tag in record.tags)
        return {name: counts[index] for index, name in enumerate(self.classes)}

    def summary(self) -> str:
        """One line: "train: 437 images, 6 classes: cat 90, cow 40, ..."; a name of several words in quotes."""
        counts = [f"{repr(name) if ' ' in name else name} {count}" for name, count in self.images_by_class().items()]
        more = len(counts) - MAX_NAMED
        named = ", ".join(counts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        none = sum(not record.tags for record in self.records)
        images, classes = counted(len(self), "image"), counted(len(self.classes), "class", "classes")
        rest = f"; {counted(none, 'image')} of no class" if none else ""
        return f"{self.split}: {images}, {classes}: {named}{rest}"

    def mask_path(self, record: Record) -> Path | None:
        """The mask of a record, or None where it has none. For scoring alone."""
        if self.mask_folder is None:
            return None
        path = self.mask_folder / f"{record.name}.png"
        return path if path.is_file() else None

    def has_masks(self) -> bool:
        """Whether at least one record can be scored. For scoring alone."""
        return any(self.mask_path(record) is not None for record in self.records)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what is counted: "1 error", "2 errors", "3 classes"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
