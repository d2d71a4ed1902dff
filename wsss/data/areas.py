"""Areas: the pixels of drawn objects, in any format through pycocotools, and the label maps that they make.

Coordinates are continuous: (0, 0) is the upper left corner of the first pixel, and a pixel is inside an outline if its
centre is. An ``Area`` is pycocotools' compressed run lengths, so that many objects of a large photo take little memory.
pycocotools crashes on coordinates that are NaN or huge, and reads beyond short run lengths: all input is checked here.

Shape suffixes: H rows, W columns, P points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from wsss.data.masks import IGNORE_INDEX

Area = Any
"""Run lengths of pycocotools: a dictionary with "size" [H, W] and "counts" as bytes; its stubs name no public type."""

FARTHEST = 1e5
"""Coordinates of outlines lie within this many pixels of the corner."""


class BadShape(ValueError):
    """A drawn object that is none: its message says why, without its place."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One object of an image.

    Attributes:
        class_index: 1..K; 0 erases, and IGNORE_INDEX is ignored.
        area: its pixels.
        front: objects with larger numbers cover those with smaller ones; of equal numbers, the smaller area is in
            front, and of equal areas the later object.
    """

    class_index: int
    area: Area
    front: float = 0.0


def outlined(outlines: Sequence[Any], size: tuple[int, int]) -> Area:
    """The union of closed outlines.

    Args:
        outlines: each a flat sequence x0, y0, x1, y1, ... of at least three points, in pixels.
        size: (H, W) of the image.

    Raises:
        BadShape: an outline has too few points, or coordinates that are no number or are far away.
    """
    checked = [_checked_outline(outline) for outline in outlines]
    height, width = size
    if not checked:
        return filled(np.zeros(size, np.bool_))
    return coco.merge(coco.frPyObjects([outline.tolist() for outline in checked], height, width))


def _checked_outline(outline: Any) -> NDArray[np.float64]:
    """The outline as (2 P,) numbers."""
    try:
        flat = np.asarray(outline, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise BadShape("an outline holds something that is no number") from error
    if len(flat) % 2 or len(flat) < 6:
        raise BadShape(f"an outline has {len(flat)} numbers; it needs pairs, and at least three")
    if not np.isfinite(flat).all() or np.abs(flat).max() > FARTHEST:
        raise BadShape("an outline holds a coordinate that is no number or far outside the image")
    return flat


def boxed(left: float, top: float, right: float, bottom: float, size: tuple[int, int]) -> Area:
    """The pixels of an upright rectangle with these edges, in pixels.

    Raises:
        BadShape: see ``outlined``.
    """
    return outlined([[left, top, right, top, right, bottom, left, bottom]], size)


def runs(counts: Sequence[int] | str | bytes, size: tuple[int, int], image_size: tuple[int, int]) -> Area:
    """COCO's run lengths: down columns, the first run is of zeros; as a list, or compressed to a text.

    Args:
        counts: the run lengths.
        size: (H, W) that the file states beside them.
        image_size: (H, W) of the image.

    Raises:
        BadShape: the size is not that of the image, or the runs are no numbers or do not fill it.
    """
    if tuple(size) != tuple(image_size):
        raise BadShape(f"run lengths of size {list(size)} (height, width) in an image of {list(image_size)}")
    height, width = image_size
    lengths = _unpacked(counts) if isinstance(counts, str | bytes) else list(counts)
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise BadShape("run lengths that are no whole numbers from 0")
    if sum(lengths) != height * width:
        raise BadShape(f"run lengths of {sum(lengths)} pixels in an image of {height * width}")
    uncompressed: Any = {"size": [height, width], "counts": lengths}
    return coco.frPyObjects(uncompressed, height, width)


def _unpacked(text: str | bytes) -> list[int]:
    """The run lengths of COCO's compressed text: 5 bits a character, each length from the third on a difference.

    Raises:
        BadShape: a character is none of these, or the text ends within a number.
    """
    lengths: list[int] = []
    value = shift = 0
    for byte in text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text:
        part = byte - 48
        if not 0 <= part < 64:
            raise BadShape("compressed run lengths with a character that cannot be in them")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        value -= (1 << shift) if part & 16 else 0
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    if shift:
        raise BadShape("compressed run lengths that end within a number")
    return lengths


def row_runs(counts: Sequence[int], left: int, top: int, width: int, height: int, size: tuple[int, int]) -> Area:
    """Run lengths along rows inside a box, the first of zeros, as CVAT writes them.

    Raises:
        BadShape: the runs do not fill the box, or the box leaves the image.
    """
    if width < 1 or height < 1 or not all(type(length) is int and length >= 0 for length in counts):
        raise BadShape("a mask without a box, or with run lengths that are no whole numbers from 0")
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0] or sum(counts) != width * height:
        raise BadShape(f"run lengths of {sum(counts)} pixels in a box of {width} x {height} at {left}, {top}")
    values = np.arange(len(counts)) % 2 == 1
    return bitmap(np.repeat(values, counts).reshape(height, width), left, top, size)


def bitmap(mask_hw: NDArray[np.bool_], left: int, top: int, size: tuple[int, int]) -> Area:
    """A small mask at its place in the image; what lies outside is cut off.

    Args:
        mask_hw: (h, w) bool.
        left, top: pixels from the corner of the image.
        size: (H, W) of the image.
    """
    whole_HW = np.zeros(size, np.bool_)
    (height, width), (rows, columns) = size, mask_hw.shape
    if abs(left) > FARTHEST or abs(top) > FARTHEST:
        raise BadShape("a mask far outside the image")
    bottom, right = min(height, top + rows), min(width, left + columns)
    if bottom > max(0, top) and right > max(0, left):
        part = mask_hw[max(0, -top) : bottom - top, max(0, -left) : right - left]
        whole_HW[max(0, top) : bottom, max(0, left) : right] = part
    return filled(whole_HW)


def filled(mask_HW: NDArray[np.bool_]) -> Area:
    """The area of a mask of the whole image."""
    return coco.encode(np.asfortranarray(mask_HW, np.uint8))


def pixels(area: Area) -> NDArray[np.bool_]:
    """(H, W) whether each pixel is in an area."""
    return np.asarray(coco.decode(area), np.bool_)


def area_size(area: Area) -> int:
    """Pixels of an area."""
    return int(coco.area(area))


def paint(objects: Iterable[Drawn], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The label map of some objects, (H, W) uint8: 0 where there is none. Ignored areas lie below all objects."""
    ordered = sorted(objects, key=lambda one: (one.class_index != IGNORE_INDEX, one.front, -area_size(one.area)))
    label_HW = np.zeros(size, np.uint8)
    for one in ordered:
        label_HW[pixels(one.area)] = one.class_index
    return label_HW
