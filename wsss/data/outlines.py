"""Connected parts of label maps, and their outlines along the edges of pixels.

The corner of pixel (row y, column x) is (x, y), as everywhere (``wsss.data.areas``): an outline has whole numbers, and
filling it gives the same pixels again. Two pixels that touch at a corner alone are two parts.

Shape suffixes: H rows, W columns, P corners.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
"""Corners (x, y) of a closed line, the first not repeated; no corner occurs twice."""
_Segments = dict[int, dict[int, int]]
"""Straight segments by the corner that they start from: by direction (1 or -1) the corner at their end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of a class.

    Attributes:
        class_index: of its pixels.
        left, top: of its box, in pixels.
        mask_hw: (h, w) bool, its pixels in the box.
    """

    class_index: int
    left: int
    top: int
    mask_hw: NDArray[np.bool_]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        return self.left, self.top, self.mask_hw.shape[1], self.mask_hw.shape[0]

    @property
    def area(self) -> int:
        """Its pixels."""
        return int(self.mask_hw.sum())

    def rings(self) -> tuple[Ring, list[Ring]]:
        """Its outer outline and those of its holes, in the image; the former runs clockwise, the latter do not."""
        rings = [[(x + self.left, y + self.top) for x, y in ring] for ring in trace(self.mask_hw)]
        outer = next(ring for ring in rings if signed_area(ring) > 0)
        return outer, [ring for ring in rings if ring is not outer]


def parts(label_HW: NDArray[np.uint8], num_classes: int) -> Iterator[Part]:
    """The parts of each class 1..K, by class and then from the top; other values have none."""
    for class_index in range(1, num_classes + 1):
        mask_HW = np.asarray(label_HW == class_index, np.uint8)
        if not mask_HW.any():
            continue
        count, part_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW, connectivity=4)
        for part in range(1, count):
            left, top, width, height = (int(value) for value in stats[part, :4])
            inside = part_HW[top : top + height, left : left + width] == part
            yield Part(class_index, left, top, inside)


def trace(mask_HW: NDArray[np.bool_]) -> list[Ring]:
    """All outlines of a mask: around its pixels clockwise, around its holes the other way."""
    across, down = _segments(mask_HW)
    rings: list[Ring] = []
    while across:
        rings += _simple(_follow(across, down), mask_HW.shape[1] + 1)
    return rings


def signed_area(ring: Ring) -> int:
    """Twice the area inside, in pixels; negative for the outline of a hole."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True))


def bridged(outer: Ring, holes: list[Ring]) -> Ring:
    """One closed line around a part with holes: from its left-most corner each hole is joined to what lies left of it.

    The joining line is walked to and fro, so it encloses nothing.
    """
    joined = list(outer)
    for hole in sorted(holes, key=min):
        first = min(range(len(hole)), key=hole.__getitem__)
        x, y = hole[first]
        corner_P2 = np.array(joined)
        next_P2 = np.roll(corner_P2, -1, axis=0)
        low_P, high_P = np.minimum(corner_P2[:, 1], next_P2[:, 1]), np.maximum(corner_P2[:, 1], next_P2[:, 1])
        fits_P = (corner_P2[:, 0] == next_P2[:, 0]) & (corner_P2[:, 0] <= x) & (low_P <= y) & (y <= high_P)
        nearest = int(np.where(fits_P, corner_P2[:, 0], -1).argmax())
        foot = (joined[nearest][0], y)
        joined[nearest + 1 : nearest + 1] = [foot, *hole[first:], *hole[:first], (x, y), foot]
    return joined


def _segments(mask_HW: NDArray[np.bool_]) -> tuple[_Segments, _Segments]:
    """The straight borders between pixels of the mask and others, with the mask on their right hand: across and down.

    A corner of index i is (i % (W + 1), i // (W + 1)).
    """
    padded = np.pad(mask_HW.astype(np.int8), 1)
    wide = mask_HW.shape[1] + 1
    across = _runs(padded[1:, 1:-1] - padded[:-1, 1:-1], wide, 1)
    down = _runs((padded[1:-1, :-1] - padded[1:-1, 1:]).T, 1, wide)
    return across, down


def _runs(sign_LN: NDArray[np.int8], line_step: int, step: int) -> _Segments:
    """Runs of equal sign along each line, as segments: forwards where it is 1, backwards where it is -1."""
    edge_LN = np.pad(sign_LN, ((0, 0), (1, 1)))
    middle = edge_LN[:, 1:-1]
    line_S, begin_S = np.nonzero((middle != 0) & (middle != edge_LN[:, :-2]))
    _, last_S = np.nonzero((middle != 0) & (middle != edge_LN[:, 2:]))
    begins, ends = line_S * line_step + begin_S * step, line_S * line_step + (last_S + 1) * step
    found: _Segments = defaultdict(dict)
    for begin, end, sign in zip(begins.tolist(), ends.tolist(), sign_LN[line_S, begin_S].tolist(), strict=True):
        found[begin if sign > 0 else end][sign] = end if sign > 0 else begin
    return found


def _follow(across: _Segments, down: _Segments) -> list[int]:
    """Take one closed line out of the segments: its corners. Where two lines meet it turns right."""
    start = next(iter(across))
    corner, direction = start, next(iter(across[start]))
    horizontal, line = True, list[int]()
    while True:
        line.append(corner)
        segments = across if horizontal else down
        corner_next = segments[corner].pop(direction)
        if not segments[corner]:
            del segments[corner]
        corner, horizontal = corner_next, not horizontal
        choices = (across if horizontal else down).get(corner)
        if not choices:
            return line
        right = -direction if horizontal else direction
        direction = right if right in choices else next(iter(choices))


def _simple(line: list[int], wide: int) -> Iterator[Ring]:
    """A closed line as rings in which no corner occurs twice."""
    path: list[int] = []
    place: dict[int, int] = {}
    for corner in line:
        if corner in place:
            loop = path[place[corner] :]
            del path[place[corner] :]
            for passed in loop:
                del place[passed]
            yield [(one % wide, one // wide) for one in loop]
        place[corner] = len(path)
        path.append(corner)
    yield [(one % wide, one // wide) for one in path]
