import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassJaccardIndex

from wsss.data.masks import IGNORE_INDEX
from wsss.evaluation.confusion import ConfusionMatrix, ThresholdSweep, Values

CLASSES = 4
PREDICTED = [0, 1, 2, 3, 9, IGNORE_INDEX]
TRUE = [0, 1, 2, 3, IGNORE_INDEX]

label_pairs = st.lists(st.tuples(st.sampled_from(PREDICTED), st.sampled_from(TRUE)), max_size=40).map(
    lambda pairs: np.array(pairs, dtype=np.uint8).reshape(-1, 2).T
)
laws = settings(max_examples=50, deadline=None)


def matrix_of(prediction: Values, truth: Values, num_classes: int = CLASSES) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(prediction, truth)
    return matrix


def test_three_pixels_by_hand() -> None:
    matrix = matrix_of(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), 3)
    assert matrix.counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(matrix.per_class_iou(), [1 / 2, 1 / 2, np.nan])
    assert matrix.mean_iou() == 1 / 2  # the class with an empty union is left out
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)
    assert matrix.coverage() == 1


def test_an_ignored_prediction_is_wrong() -> None:
    matrix = matrix_of(np.array([[1, IGNORE_INDEX, 7, 0]]), np.array([[1, 1, 1, IGNORE_INDEX]]), 2)
    assert matrix.counts.tolist() == [[0, 0, 0], [0, 1, 2]]
    np.testing.assert_array_equal(matrix.per_class_iou(), [np.nan, 1 / 3])
    assert matrix.pixel_accuracy() == matrix.coverage() == pytest.approx(1 / 3)


def test_negative_predictions_are_wrong_not_wrapped() -> None:
    assert matrix_of(np.array([-1, -3]), np.array([1, 0]), 2).counts.tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "shape"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "float64"),
        (np.zeros(2, int), np.array([0, 9]), "truth holds 9"),
        (np.zeros(2, int), np.array([0, -1]), "truth holds -1"),
        (np.zeros(2, int), np.array([0, 256]), "truth holds 256"),
    ],
)
def test_what_cannot_be_counted_is_refused(prediction: NDArray[Any], truth: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matrix_of(prediction, truth)


@pytest.mark.parametrize("num_classes", [0, 256])
def test_an_impossible_number_of_classes_is_refused(num_classes: int) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(num_classes)


def test_nothing_counted_is_nan_without_warnings() -> None:
    matrix = matrix_of(np.zeros((2, 2), int), np.full((2, 2), IGNORE_INDEX))
    figures = [matrix.mean_iou(), matrix.pixel_accuracy(), matrix.coverage()]
    assert all(math.isnan(figure) for figure in figures)
    assert np.isnan(matrix.per_class_iou()).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint32, np.int64])
def test_any_integer_dtype_counts_alike(dtype: type[np.integer[Any]]) -> None:
    prediction, truth = np.array([[0, 1], [3, 3]]), np.array([[0, 1], [2, 3]])
    expected = matrix_of(prediction, truth).counts
    np.testing.assert_array_equal(matrix_of(prediction.astype(dtype), truth.astype(dtype)).counts, expected)


@pytest.mark.parametrize("seed", range(3))
def test_parity_with_torchmetrics(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    prediction_BHW = torch.randint(0, CLASSES, (3, 17, 11), generator=generator)
    truth_BHW = torch.randint(0, CLASSES, (3, 17, 11), generator=generator)
    truth_BHW[torch.rand(truth_BHW.shape, generator=generator) < 0.2] = IGNORE_INDEX
    library = MulticlassJaccardIndex(num_classes=CLASSES, average=None, ignore_index=IGNORE_INDEX)
    expected = library(prediction_BHW, truth_BHW).numpy()
    matrix = matrix_of(prediction_BHW, truth_BHW)
    np.testing.assert_allclose(matrix.per_class_iou(), expected, rtol=1e-6)
    assert matrix.mean_iou() == pytest.approx(expected.mean())


@laws
@given(label_pairs)
def test_parity_with_a_naive_loop(pairs: NDArray[np.uint8]) -> None:
    prediction, truth = pairs
    matrix = matrix_of(prediction, truth)
    pixels = [(int(p), int(t)) for p, t in zip(prediction, truth, strict=True) if t != IGNORE_INDEX]
    for index, iou in enumerate(matrix.per_class_iou()):
        union = sum(index in pixel for pixel in pixels)
        expected = pixels.count((index, index)) / union if union else math.nan
        assert iou == pytest.approx(expected, nan_ok=True)
    covered = sum(p < CLASSES for p, _ in pixels) / len(pixels) if pixels else math.nan
    assert matrix.coverage() == pytest.approx(covered, nan_ok=True)


@laws
@given(label_pairs, st.permutations(range(CLASSES)))
def test_renaming_classes_permutes_the_ious(pairs: NDArray[np.uint8], new: list[int]) -> None:
    rename = np.arange(256)
    rename[:CLASSES] = new
    iou_C = matrix_of(*pairs).per_class_iou()
    renamed_C = matrix_of(rename[pairs[0]], rename[pairs[1]]).per_class_iou()
    np.testing.assert_array_equal(renamed_C[new], iou_C)


@laws
@given(label_pairs, label_pairs)
def test_two_updates_equal_one(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
    apart = matrix_of(*first).counts + matrix_of(*second).counts
    together = matrix_of(*np.concatenate([first, second], axis=1))
    np.testing.assert_array_equal(apart, together.counts)


@laws
@given(label_pairs)
def test_metrics_are_bounded_and_ordered(pairs: NDArray[np.uint8]) -> None:
    matrix = matrix_of(*pairs)
    if matrix.counts.sum():
        assert 0 <= matrix.mean_iou() <= 1
        assert 0 <= matrix.pixel_accuracy() <= matrix.coverage() <= 1


def test_sweep_of_three_pixels_by_hand() -> None:
    sweep = ThresholdSweep(3, [0.6, 0.0, 0.2])
    sweep.update(np.array([[0.2, 0.5, 0.9]]), np.array([[1, 2, 2]]), np.array([[0, 2, 2]]))
    assert sweep.thresholds.tolist() == [0.0, 0.2, 0.6]
    np.testing.assert_allclose(sweep.mean_ious(), [1 / 3, 1, 1 / 2])  # 0 is wrong; all right; 0.5 is lost
    threshold, matrix = sweep.oracle()
    assert threshold == 0.2
    assert matrix.counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0]]


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_sweep_parity_with_a_loop_over_thresholds(num_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    thresholds = np.arange(0, 101) / 100
    sweep = ThresholdSweep(num_classes, thresholds)
    matrices = [ConfusionMatrix(num_classes) for _ in thresholds]
    for shape in [(9, 13), (20, 7)]:
        best_HW = (rng.integers(0, 256, shape) / 255).astype(np.float32)  # 51 / 255 is the threshold 0.2
        class_HW = rng.integers(1, num_classes, shape).astype(np.uint8)
        truth_HW = rng.choice([*range(num_classes), IGNORE_INDEX], shape).astype(np.uint8)
        sweep.update(torch.from_numpy(best_HW), class_HW, truth_HW)
        for matrix, threshold in zip(matrices, thresholds, strict=True):
            matrix.update(np.where(best_HW > np.float32(threshold), class_HW, 0), truth_HW)
    for matrix, threshold in zip(matrices, thresholds, strict=True):
        np.testing.assert_array_equal(sweep.at(threshold).counts, matrix.counts)
    means = [matrix.mean_iou() for matrix in matrices]
    np.testing.assert_array_equal(sweep.mean_ious(), means)
    assert sweep.oracle()[0] == thresholds[int(np.argmax(means))]


def test_an_empty_sweep_is_nan_without_warnings() -> None:
    threshold, matrix = ThresholdSweep(2, [0.25, 0.75]).oracle()
    assert threshold == 0.25
    assert math.isnan(matrix.mean_iou())


def test_a_sweep_refuses_what_it_cannot_count() -> None:
    sweep = ThresholdSweep(3, [0.5])
    one, zero = np.ones((1, 1), int), np.zeros((1, 1), int)
    with pytest.raises(ValueError, match="NaN"):
        sweep.update(np.full((1, 1), np.nan), one, zero)
    with pytest.raises(ValueError, match=r"1\.\.2"):
        sweep.update(np.zeros((1, 1)), zero, zero)
    with pytest.raises(ValueError, match="shape"):
        sweep.update(np.zeros((1, 2)), one, zero)
    with pytest.raises(ValueError, match="truth holds 3"):
        sweep.update(np.zeros((1, 1)), one, 3 * one)
    with pytest.raises(ValueError, match="none of the 1 thresholds"):
        sweep.at(0.4)
