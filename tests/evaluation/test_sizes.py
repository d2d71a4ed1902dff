"""Scores by the size of objects: the example of the docstring, laws, and that no pixel is hidden."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsss.data.masks import IGNORE_INDEX
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.evaluation.sizes import BIN_NAMES, SizeCounts


def row(text: str) -> np.ndarray:
    """A row of pixels: digits are classes, "." background, "?" ignored."""
    values = {".": 0, "?": IGNORE_INDEX}
    return np.array([[values.get(letter, letter) for letter in text.replace(" ", "")]]).astype(np.uint8)


def test_the_example_by_hand() -> None:
    counts = SizeCounts(3)
    counts.update(row("11...2...1"), row("1111..2..1"))
    assert counts.pairs_S.tolist() == [0, 0, 1, 1]
    assert counts.both_S.tolist() == [0, 0, 0, 3]
    assert counts.either_S.tolist() == [0, 0, 2, 5]
    assert (counts.parts_S.tolist(), counts.found_S.tolist()) == ([0, 0, 2, 1], [0, 0, 1, 1])
    np.testing.assert_array_equal(counts.iou(), [np.nan, np.nan, 0, 0.6])
    np.testing.assert_array_equal(counts.recall(), [np.nan, np.nan, 0.5, 1])


def test_half_of_a_part_finds_it_and_less_does_not() -> None:
    counts = SizeCounts(2)
    counts.update(row("11........"), row("1111......"))
    counts.update(row("1........."), row("111......."))
    assert (counts.found_S.tolist(), counts.parts_S.tolist()) == ([0, 0, 0, 1], [0, 0, 0, 2])


def test_ignored_pixels_count_nowhere_and_end_parts() -> None:
    counts = SizeCounts(2)
    counts.update(row("11111....."), row("1?1......."))
    assert (counts.scored, counts.parts_S.tolist()) == (9, [0, 0, 2, 0])
    assert (counts.both_S.tolist(), counts.either_S.tolist()) == ([0, 0, 0, 2], [0, 0, 0, 4])


def test_classes_that_an_image_does_not_have_are_counted_apart() -> None:
    counts = SizeCounts(3)
    counts.update(row("222......."), row("1........."))
    assert (counts.absent, counts.either_S.tolist()) == (3, [0, 0, 1, 0])


def test_sizes_at_the_borders_belong_to_the_next_bin() -> None:
    for pixels, index in ((1, 0), (2, 1), (9, 1), (10, 2), (39, 2), (40, 3)):
        truth_HW = np.zeros((2, 100), np.uint8)
        truth_HW.reshape(-1)[:pixels] = 1
        counts = SizeCounts(2)
        counts.update(truth_HW, truth_HW)
        assert counts.pairs_S.tolist() == [int(k == index) for k in range(len(BIN_NAMES))], pixels


masks = arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, IGNORE_INDEX]))


@given(masks, masks)
def test_all_pixels_of_objects_are_in_a_bin_or_absent(label_HW: np.ndarray, truth_HW: np.ndarray) -> None:
    counts, matrix = SizeCounts(3), ConfusionMatrix(3)
    counts.update(label_HW, truth_HW)
    matrix.update(label_HW, truth_HW)
    both = np.trace(matrix.counts[1:, 1:3])
    either = matrix.counts[1:].sum() + matrix.counts[:, 1:3].sum() - both
    assert counts.both_S.sum() == both
    assert counts.either_S.sum() + counts.absent == either
    assert (counts.found_S <= counts.parts_S).all()


@given(masks)
def test_a_perfect_prediction_finds_all(truth_HW: np.ndarray) -> None:
    counts = SizeCounts(3)
    counts.update(truth_HW, truth_HW)
    assert (counts.found_S == counts.parts_S).all()
    assert (counts.both_S == counts.either_S).all()
    assert counts.absent == 0
