"""Confusion matrices of pixels, and the metrics computed from them.

Shape suffixes: C classes with the background (K + 1), K foreground classes, T thresholds, H rows, W columns, P pixels
in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, PIXELS_AT_ONCE

if TYPE_CHECKING:
    from torch import Tensor

Values: TypeAlias = "NDArray[Any] | Tensor"
"""An array or a tensor on any device."""

THRESHOLD_TOLERANCE = 1e-6


def as_array(values: Values) -> NDArray[Any]:
    """Bring an array or a tensor (any device, any dtype) to NumPy, without importing torch."""
    if isinstance(values, np.ndarray):
        return values
    tensor = values.detach().cpu()
    return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)


def checked_labels(prediction: Values, truth: Values, num_classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A prediction and its truth as arrays; raises the ValueError of ``ConfusionMatrix.update``."""
    prediction, truth = _labels(prediction, "prediction"), _labels(truth, "truth")
    _same_shape(prediction, truth)
    _check_truth(truth, num_classes)
    return prediction, truth


class ConfusionMatrix:
    """Pixels of a whole data set by true class (row) and predicted class (column).

    Pixels whose true class is IGNORE_INDEX are not counted. A *prediction* outside 0..C-1, such as IGNORE_INDEX, is
    wrong: it is counted in an extra last column, so it enlarges the union of the true class, but no intersection.

    Attributes:
        counts: (C, C + 1) int64, pixels.
    """

    def __init__(self, num_classes: int) -> None:
        """Start with zero counts; ``num_classes`` is C, background included, at most 255."""
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes must be in 1..{IGNORE_INDEX}, got {num_classes}")
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, prediction: Values, truth: Values) -> None:
        """Count the pixels of one label map, or of a batch of them.

        Args:
            prediction: class indices of any integer dtype and shape.
            truth: class indices of the same shape, 0..C-1 or IGNORE_INDEX.

        Raises:
            ValueError: the shapes differ, a dtype is not integer, or the truth contains another value.
        """
        prediction, truth = checked_labels(prediction, truth, self.num_classes)
        rows, columns = self.counts.shape
        for some_P, true_P in _chunks(prediction, truth):
            column_P = some_P.astype(np.intp)
            column_P = np.where((column_P >= 0) & (column_P < rows), column_P, rows)
            index_P = true_P.astype(np.intp) * columns + column_P
            counts = np.bincount(index_P, minlength=self.counts.size)  # pixels to ignore are beyond its size
            self.counts += counts[: self.counts.size].reshape(rows, columns)

    def per_class_iou(self) -> NDArray[np.float64]:
        """Intersection over union: (C,) in [0, 1], NaN where the union is empty."""
        intersection_C = np.diagonal(self.counts)
        union_C = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - intersection_C
        iou_C = np.full(self.num_classes, np.nan)
        np.divide(intersection_C, union_C, out=iou_C, where=union_C > 0)
        return iou_C

    def mean_iou(self) -> float:
        """Mean IoU over the classes with a non-empty union; NaN where nothing was counted."""
        iou_C = self.per_class_iou()
        known = iou_C[~np.isnan(iou_C)]
        return float(known.mean()) if known.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose class is right; NaN where nothing was counted."""
        return self._share(int(np.trace(self.counts)))

    def coverage(self) -> float:
        """Share of the counted pixels that the prediction gives a class; NaN where nothing was counted."""
        return self._share(int(self.counts[:, :-1].sum()))

    def _share(self, pixels: int) -> float:
        total = int(self.counts.sum())
        return pixels / total if total else float("nan")


class ThresholdSweep:
    """The confusion matrix of every background threshold, from one pass over the pixels.

    A pixel gets its strongest class where ``score > threshold``, else the background. The sweep stores a joint
    histogram over (number of thresholds that the score exceeds, class, truth); cumulative sums give each matrix.
    Scores and thresholds are compared in float32.

    Attributes:
        thresholds: (T,) float64, ascending.
        joint: (T + 1, K, C + 1) int64, pixels by the number of thresholds that the score exceeds, class and truth.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] | NDArray[np.float64]) -> None:
        """Start with zero counts; ``num_classes`` is C = K + 1, in 2..255."""
        if not 2 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes must be in 2..{IGNORE_INDEX}, got {num_classes}")
        self.num_classes = num_classes
        self.thresholds: NDArray[np.float64] = np.unique(np.asarray(thresholds, dtype=np.float64))
        if self.thresholds.size == 0:
            raise ValueError("a sweep needs at least one threshold")
        self._edges_T = self.thresholds.astype(np.float32)
        shape = (
            self.thresholds.size + 1,
            num_classes - 1,
            num_classes + 1,
        )  # last truth column: IGNORE_INDEX
        self.joint: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)

    def update(self, best_HW: Values, class_HW: Values, truth_HW: Values) -> None:
        """Count the pixels of one image, or of a batch of them.

        Args:
            best_HW: strongest class score, in [0, 1].
            class_HW: class index of that score, 1..K.
            truth_HW: class indices 0..K or IGNORE_INDEX.

        Raises:
            ValueError: shapes differ, a score is NaN, or a class is out of range.
        """
        best_HW, class_HW = as_array(best_HW), _labels(class_HW, "class")
        truth_HW = _labels(truth_HW, "truth")
        _same_shape(class_HW, truth_HW)
        _same_shape(best_HW, truth_HW)
        _check_truth(truth_HW, self.num_classes)
        if class_HW.size and not (class_HW.min() >= 1 and class_HW.max() < self.num_classes):
            raise ValueError(f"class_HW must lie in 1..{self.num_classes - 1}")
        if np.isnan(best_HW).any():
            raise ValueError("best_HW holds NaN")
        _, num_foreground, num_truths = self.joint.shape
        for best_P, class_P, truth_P in _chunks(best_HW, class_HW, truth_HW):
            exceeded_P = np.searchsorted(self._edges_T, best_P.astype(np.float32, copy=False), side="left")
            index_P = (exceeded_P * num_foreground + class_P - 1) * num_truths
            index_P += np.minimum(truth_P, self.num_classes)
            counts = np.bincount(index_P, minlength=self.joint.size)
            self.joint += counts.reshape(self.joint.shape)

    def at(self, threshold: float) -> ConfusionMatrix:
        """The matrix at one of the thresholds; ValueError for another value."""
        index = int(np.abs(self.thresholds - threshold).argmin())
        if abs(self.thresholds[index] - threshold) > THRESHOLD_TOLERANCE:
            raise ValueError(f"{threshold} is none of the {self.thresholds.size} thresholds of this sweep")
        return self._matrix(self.joint[index + 1 :, :, :-1].sum(axis=0))

    def mean_ious(self) -> NDArray[np.float64]:
        """Mean IoU at every threshold: (T,), NaN where nothing was counted."""
        foreground_TKC = np.cumsum(self.joint[:0:-1, :, :-1], axis=0)[::-1]
        return np.array([self._matrix(foreground_KC).mean_iou() for foreground_KC in foreground_TKC])

    def oracle(self) -> tuple[float, ConfusionMatrix]:
        """The threshold with the highest mean IoU (the lowest of equal ones) and its matrix.

        The threshold is chosen on the ground truth that it is scored with, so it must be reported as an oracle.
        """
        mean_iou_T = self.mean_ious()
        threshold = float(self.thresholds[int(np.nan_to_num(mean_iou_T, nan=-1.0).argmax())])
        return threshold, self.at(threshold)

    def _matrix(self, foreground_KC: NDArray[np.int64]) -> ConfusionMatrix:
        """The matrix where these pixels, (K, C) by class and truth, are foreground and all others background."""
        matrix = ConfusionMatrix(self.num_classes)
        matrix.counts[:, 1:-1] = foreground_KC.T
        matrix.counts[:, 0] = self.joint[:, :, :-1].sum(axis=(0, 1)) - foreground_KC.sum(axis=0)
        return matrix


def _chunks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Flatten arrays of equal shape and yield them in parts, because an index takes 8 bytes a pixel."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIXELS_AT_ONCE):
        yield tuple(array[start : start + PIXELS_AT_ONCE] for array in flat)


def _labels(values: Values, role: str) -> NDArray[Any]:
    array = as_array(values)
    if array.dtype.kind not in "iub":
        raise ValueError(f"{role} must hold integers, got {array.dtype}")
    return array


def _same_shape(prediction: NDArray[Any], truth: NDArray[Any]) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")


def _check_truth(truth: NDArray[Any], num_classes: int) -> None:
    """Raise ValueError if the truth contains a value that is neither a class index nor IGNORE_INDEX."""
    wrong = (truth < 0) | ((truth >= num_classes) & (truth != IGNORE_INDEX))
    if wrong.any():
        raise ValueError(f"truth holds {truth[wrong][0]}, expected 0..{num_classes - 1} or {IGNORE_INDEX}")
