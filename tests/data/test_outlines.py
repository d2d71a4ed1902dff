"""Outlines along pixel edges: by hand, and filled again by pycocotools for random maps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from wsss.data.areas import outlined, pixels
from wsss.data.outlines import bridged, parts, signed_area, trace

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))
LABELS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 255]))


def test_one_pixel_by_hand() -> None:
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 2] = True
    assert trace(mask) == [[(2, 1), (3, 1), (3, 2), (2, 2)]]


def test_a_hole_is_joined_to_the_border_on_its_left() -> None:
    mask = np.ones((3, 3), np.bool_)
    mask[1, 1] = False
    (part,) = parts(mask.astype(np.uint8), 1)
    outer, holes = part.rings()
    assert outer == [(0, 0), (3, 0), (3, 3), (0, 3)]
    assert [sorted(hole) for hole in holes] == [[(1, 1), (1, 2), (2, 1), (2, 2)]]
    assert bridged(outer, holes)[4:] == [(0, 1), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1), (0, 1)]


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    label = np.array([[1, 0], [0, 1]], np.uint8)
    assert [(part.left, part.top, part.area) for part in parts(label, 1)] == [(0, 0, 1), (1, 1, 1)]


@given(MASKS)
def test_rings_are_simple_and_enclose_the_pixels(mask: NDArray[np.bool_]) -> None:
    rings = trace(mask)
    assert sum(signed_area(ring) for ring in rings) == 2 * mask.sum()
    for ring in rings:
        assert len(set(ring)) == len(ring)
        steps = zip(ring, ring[1:] + ring[:1], strict=True)
        assert all((x0 == x1) != (y0 == y1) for (x0, y0), (x1, y1) in steps)


@given(LABELS)
def test_filling_the_outlines_of_the_parts_gives_the_map_again(label: NDArray[np.uint8]) -> None:
    again = np.zeros_like(label)
    for part in parts(label, 2):
        outer, holes = part.rings()
        assert all(signed_area(hole) < 0 for hole in holes)
        flat = [number for corner in bridged(outer, holes) for number in corner]
        filled = pixels(outlined([flat], label.shape))  # type: ignore[arg-type]
        assert filled.sum() == part.area
        again[filled] = part.class_index
    assert np.array_equal(again, np.where(label == 255, 0, label))
