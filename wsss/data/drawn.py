"""Masks from drawn objects: outlines, run lengths and bitmaps become a label map when an image is scored.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsss.data.areas import Area, BadShape, Drawn, paint
from wsss.data.findings import BadData, Place

if TYPE_CHECKING:
    from wsss.data.records import Record


@dataclass(frozen=True, slots=True)
class Shape:
    """One drawn object, not yet filled.

    Attributes:
        class_index: 1..K; 0 erases, and IGNORE_INDEX is ignored.
        area: given the size (H, W) of the image, its pixels; can be pickled (``partial(outlined, outlines)``).
            It raises ``BadShape``.
        front: see ``Drawn``.
    """

    class_index: int
    area: Callable[[tuple[int, int]], Area]
    front: float = 0.0


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """The objects of one image.

    Attributes:
        shapes: all of them; empty where the image is known to hold none.
        place: where they stand, for messages.
        size: (H, W) that the file states; None where it does not.
    """

    shapes: tuple[Shape, ...]
    place: Place
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DrawnMasks:
    """A ``Truth``: the masks that drawn objects make.

    Attributes:
        images: by name; an image whose annotation gives no area, as a box does, is not among them.
    """

    images: Mapping[str, DrawnImage]

    def has(self, record: Record) -> bool:
        """Whether the image has a mask."""
        return record.name in self.images

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The label map of an image; None where it has none.

        Raises:
            DataError: the stated size is not that of the image, or an object is none.
        """
        drawn = self.images.get(record.name)
        return None if drawn is None else paint_image(drawn, record.upright_size())


def paint_image(drawn: DrawnImage, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The label map of an image of this size (H, W).

    Raises:
        DataError: the stated size is another, or an object is none.
    """
    if drawn.size is not None and drawn.size != size:
        raise size_differs(drawn.place, drawn.size, size)
    objects = []
    for shape in drawn.shapes:
        try:
            objects.append(Drawn(shape.class_index, shape.area(size), shape.front))
        except BadShape as error:
            raise BadData.at("shape-unreadable", drawn.place, str(error), "correct or delete this object") from error
    return paint(objects, size)


def size_differs(place: Place, stated: tuple[int, int], size: tuple[int, int]) -> BadData:
    """The error for an annotation of an image of another size; both are (H, W)."""
    what = f"states {stated[1]}x{stated[0]} (width x height), the upright image has {size[1]}x{size[0]}"
    if stated == size[::-1]:
        what += ": the turn in the photo's EXIF data was not applied where it was annotated"
    return BadData.at("shape-size", place, what, "save the photo upright and annotate it again, or correct the size")
