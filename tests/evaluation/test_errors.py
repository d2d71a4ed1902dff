import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.evaluation.errors import NO_ERROR, ErrorCounts, ErrorKind, error_kinds

CLASSES = 4
MISSED, PARTIAL, WRONG_CLASS, BLEEDING, INVENTED, IGNORED = ErrorKind
LETTERS = dict(zip((*ErrorKind, NO_ERROR), "mpwbix ", strict=True))

shapes = array_shapes(min_dims=2, max_dims=2, max_side=7)
laws = settings(max_examples=60, deadline=None)


@st.composite
def label_pairs(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A prediction, also with unknown class indices, and its truth, which equals it at some pixels."""
    shape = draw(shapes)
    truth_HW = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, IGNORE_INDEX]), fill=st.nothing()))
    other_HW = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 9, 255]), fill=st.nothing()))
    return np.where(draw(arrays(np.bool_, shape)), truth_HW, other_HW), truth_HW


def label(*rows: str) -> NDArray[np.uint8]:
    values = {".": 0, "?": IGNORE_INDEX}
    return np.array([[values[c] if c in values else int(c) for c in row] for row in rows], dtype=np.uint8)


def letters(prediction: tuple[str, ...], truth: tuple[str, ...]) -> list[str]:
    """One letter a pixel: the first of its kind, x for ignored, a space where nothing is lost."""
    return ["".join(LETTERS[int(kind)] for kind in row) for row in error_kinds(label(*prediction), label(*truth))]


def counts_of(*pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> ErrorCounts:
    counts = ErrorCounts(CLASSES)
    for label_HW, truth_HW in pairs:
        counts.update(label_HW, truth_HW)
    return counts


@pytest.mark.parametrize(
    ("prediction", "kinds"),
    [
        ("11.2....11", "  pw  mmii"),
        ("11111..?..", "    b mx  "),
    ],
)
def test_the_example_of_the_module(prediction: str, kinds: str) -> None:
    assert letters((prediction,), ("1111..22..",)) == [kinds]


def test_objects_are_found_one_by_one() -> None:
    """The second object of class 1 is missed, although the first one is found; diagonal neighbours are one region."""
    truth = ("1..11", ".1.11")
    assert letters(("1....", "....."), truth) == ["   mm", " p mm"]


def test_a_region_is_of_one_class() -> None:
    """No pixel of the 2 is predicted as 2: its pixels predicted as background are missed, beside a 1 that is found."""
    assert letters(("11.1",), ("1122",)) == ["  mw"]


def test_a_tenth_of_the_region_is_found() -> None:
    assert letters(("1.........",), ("1" * 10,)) == [" " + "p" * 9]
    assert letters(("1..........",), ("1" * 11,)) == [" " + "m" * 10]


def test_a_halo_stays_with_its_object_across_an_unlabelled_contour() -> None:
    truth = (".?11?.",)
    assert letters(("111111",), truth) == ["b    b"]
    assert letters(("11....",), truth) == ["i mm  "]  # overlap with the unlabelled contour alone does not count
    assert letters(("222222",), truth) == ["i ww i"]  # nothing of class 2 is there


def test_a_region_bleeds_diagonally_and_another_of_its_class_does_not() -> None:
    assert letters(("1...", ".1.1"), ("1...", "....")) == ["    ", " b i"]


def test_ignored_background_and_objects_are_one_kind_and_unknown_truth_is_none() -> None:
    assert letters(("????", "1.2?"), ("..11", "????")) == ["xxxx", "    "]


def test_each_error_is_put_down_to_one_class() -> None:
    counts = counts_of((label("11.2....33", "9111......"), label("1111..22..", ".111......")))
    assert counts.counts.tolist() == [
        [0, 0, 0, 0, 0, 1],  # the index 9 is no class: ignored
        [0, 1, 1, 0, 0, 0],
        [2, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 2, 0],
    ]
    assert counts.shares().tolist() == [2 / 7, 1 / 7, 1 / 7, 0, 2 / 7, 1 / 7]
    assert counts.per_class()[1].tolist() == [0, 1 / 2, 1 / 2, 0, 0, 0]
    bleeding = counts_of((label("111"), label(".1.")))
    assert bleeding.counts[1].tolist() == [0, 0, 0, 2, 0, 0]
    assert np.isnan(bleeding.per_class()[[0, 2, 3]]).all()


@laws
@given(label_pairs())
def test_every_lost_pixel_is_of_one_kind(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    counts, matrix = counts_of(pair), ConfusionMatrix(CLASSES)
    matrix.update(*pair)
    lost = int(matrix.counts.sum() - np.trace(matrix.counts))
    assert counts.counts.sum() == lost
    by_kind = dict(zip(ErrorKind, counts.counts.sum(axis=0).tolist(), strict=True))
    assert by_kind[IGNORED] == matrix.counts[:, -1].sum()
    assert by_kind[MISSED] + by_kind[PARTIAL] == matrix.counts[1:, 0].sum()
    assert by_kind[BLEEDING] + by_kind[INVENTED] == matrix.counts[0, 1:-1].sum()
    if lost:
        assert counts.shares().sum() == pytest.approx(1)
    else:
        assert np.isnan(counts.shares()).all()


@laws
@given(label_pairs())
def test_kinds_equal_a_flood_fill_of_every_pixel(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    label_HW, truth_HW = pair
    label_HW = np.where(label_HW < CLASSES, label_HW, np.uint8(IGNORE_INDEX))
    kind_HW = error_kinds(label_HW, truth_HW)
    for place in np.ndindex(truth_HW.shape):
        assert kind_HW[place] == kind_by_flood_fill(label_HW, truth_HW, place)


def kind_by_flood_fill(label_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8], place: tuple[int, int]) -> int:
    predicted, true = int(label_HW[place]), int(truth_HW[place])
    if true in (IGNORE_INDEX, predicted):
        return NO_ERROR
    if predicted == IGNORE_INDEX:
        return IGNORED
    if true != 0 and predicted != 0:
        return WRONG_CLASS
    if true != 0:
        region = flood(truth_HW, place)
        return PARTIAL if 10 * sum(label_HW[p] == true for p in region) >= len(region) else MISSED
    return BLEEDING if any(truth_HW[p] == predicted for p in flood(label_HW, place)) else INVENTED


def flood(label_HW: NDArray[np.uint8], place: tuple[int, int]) -> set[tuple[int, int]]:
    """All places of the 8-connected region that contains a place."""
    region, edge = {place}, [place]
    while edge:
        row, column = edge.pop()
        near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
        for y, x in near - region:
            inside = 0 <= y < label_HW.shape[0] and 0 <= x < label_HW.shape[1]
            if inside and label_HW[y, x] == label_HW[place]:
                region.add((y, x))
                edge.append((y, x))
    return region


@laws
@given(shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255]))))
def test_a_perfect_prediction_has_no_errors(truth_HW: NDArray[np.uint8]) -> None:
    counts = counts_of((truth_HW, truth_HW))
    assert not counts.counts.any()
    assert np.isnan(counts.shares()).all()


@laws
@given(st.lists(label_pairs(), max_size=4), st.lists(label_pairs(), max_size=4))
def test_parts_add_up_to_the_whole(
    first: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], second: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
) -> None:
    parts = counts_of(*first).counts + counts_of(*second).counts
    np.testing.assert_array_equal(parts, counts_of(*first, *second).counts)


def test_what_does_not_fit_is_refused() -> None:
    counts = ErrorCounts(CLASSES)
    with pytest.raises(ValueError, match="differ in shape"):
        counts.update(label(".."), label("..."))
    with pytest.raises(ValueError, match="truth holds 7"):
        counts.update(label("."), label("7"))
    with pytest.raises(ValueError, match=r"one image \(H, W\)"):
        counts.update(label(".")[None], label("1")[None])
    with pytest.raises(ValueError, match=r"num_classes must be in 1\.\.255, got 256"):
        ErrorCounts(256)
