"""Sort the pixels that a prediction loses by the kind of error.

A lost pixel has a true class and another prediction. Each is of exactly one kind:

- ignored: the prediction commits to no class (IGNORE_INDEX, or an index that is none);
- missed: an object called background, and less than FOUND_SHARE of its region got its class;
- partial: an object called background, while FOUND_SHARE or more of its region got its class;
- wrong class: one foreground class called another;
- bleeding: background called class c, in a predicted region of c that holds truth of c somewhere;
- invented: background called class c, in a predicted region of c that holds none.

A region is an 8-connected component of one class: of the truth for partial and missed, of the prediction for
bleeding and invented. Regions of the truth end at IGNORE_INDEX; those of the prediction run on below it, so that
an unlabelled contour does not cut a halo off its object. The halo of a misnamed object is invented: nothing of its
class is there. Each lost pixel is put down to one class: the predicted one if it is bleeding or invented, else the
true one.

By hand, one row of pixels from pixel 0, ``.`` background, ``?`` IGNORE_INDEX::

    truth   1 1 1 1 . . 2 2 . .
    one     1 1 . 2 . . . . 1 1     2 partial, 3 wrong class, 6 and 7 missed, 8 and 9 invented
    other   1 1 1 1 1 . . ? . .     4 bleeding, 6 missed, 7 ignored

After Hoiem, Chodpathumwan, Dai: Diagnosing error in object detectors (ECCV 2012), whose detections meet an object from
an overlap of 0.1; there it is of boxes (intersection over union), here the share of a region.

Shape suffixes: C classes with the background, E kinds of error, R regions of an image (0: all that is outside the
others), H rows, W columns.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX
from wsss.evaluation.confusion import Values, checked_labels

FOUND_SHARE = 0.1
"""An object is found where at least this share of its region gets its class."""


class ErrorKind(IntEnum):
    """The kinds of error, as columns of the counts; see the module."""

    MISSED = 0
    PARTIAL = 1
    WRONG_CLASS = 2
    BLEEDING = 3
    INVENTED = 4
    IGNORED = 5


NO_ERROR = len(ErrorKind)
"""In a map of kinds: a pixel that is right, or whose truth is not known."""


class ErrorCounts:
    """Lost pixels of a whole data set by class (row) and kind (column).

    Their sum is what the confusion matrix holds off its diagonal.

    Attributes:
        counts: (C, E) int64, pixels.
    """

    def __init__(self, num_classes: int) -> None:
        """Start with nothing counted; ``num_classes`` is C, background included, at most 255."""
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes must be in 1..{IGNORE_INDEX}, got {num_classes}")
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, len(ErrorKind)), dtype=np.int64)

    def update(self, label_HW: Values, truth_HW: Values) -> None:
        """Count the lost pixels of one image.

        Args:
            label_HW: the prediction, class indices of any integer dtype.
            truth_HW: class indices 0..C-1 or IGNORE_INDEX.

        Raises:
            ValueError: the shapes differ or are not (H, W), a dtype is no integer, or the truth names an unknown class.
        """
        label_HW, truth_HW = checked_labels(label_HW, truth_HW, self.num_classes)
        known_HW = (label_HW >= 0) & (label_HW < self.num_classes)
        label_HW = np.where(known_HW, label_HW, IGNORE_INDEX)
        kind_HW = error_kinds(label_HW, truth_HW)
        lost_HW = kind_HW != NO_ERROR
        predicted_HW = (kind_HW == ErrorKind.BLEEDING) | (kind_HW == ErrorKind.INVENTED)
        class_HW = np.where(predicted_HW, label_HW, truth_HW)
        np.add.at(self.counts, (class_HW[lost_HW], kind_HW[lost_HW]), 1)

    def shares(self) -> NDArray[np.float64]:
        """Share of each kind in all lost pixels: (E,) in [0, 1], NaN where nothing is lost."""
        return _shares(self.counts.sum(axis=0))

    def per_class(self) -> NDArray[np.float64]:
        """Share of each kind in the lost pixels of each class: (C, E) in [0, 1], NaN where a class lost nothing."""
        return _shares(self.counts)


def error_kinds(label_HW: NDArray[Any], truth_HW: NDArray[Any]) -> NDArray[np.intp]:
    """The kind of error of every pixel.

    Args:
        label_HW: the prediction, class indices 0..K or IGNORE_INDEX.
        truth_HW: class indices 0..K or IGNORE_INDEX.

    Returns:
        (H, W), an ErrorKind or NO_ERROR.

    Raises:
        ValueError: these are no single images.
    """
    if truth_HW.ndim != 2:
        raise ValueError(f"expected one image (H, W), got {truth_HW.shape}")
    background_HW = label_HW == 0
    kinds = [
        ((truth_HW == IGNORE_INDEX) | (label_HW == truth_HW), NO_ERROR),
        (label_HW == IGNORE_INDEX, ErrorKind.IGNORED),
        (background_HW & (_agreement(truth_HW, label_HW) >= FOUND_SHARE), ErrorKind.PARTIAL),
        (background_HW, ErrorKind.MISSED),
        (truth_HW != 0, ErrorKind.WRONG_CLASS),
        (_agreement(label_HW, truth_HW) > 0, ErrorKind.BLEEDING),
    ]
    masks, values = zip(*kinds, strict=True)
    return np.select(masks, [np.intp(value) for value in values], default=np.intp(ErrorKind.INVENTED))


def _agreement(label_HW: NDArray[Any], other_HW: NDArray[Any]) -> NDArray[np.float64]:
    """The share of each pixel's region that the other map gives the same class: (H, W) in [0, 1], else 0."""
    share_HW = np.zeros(label_HW.shape)
    for index in np.flatnonzero(np.bincount(label_HW.ravel())):
        if index in (0, IGNORE_INDEX):
            continue
        regions, region_HW = cv2.connectedComponents((label_HW == index).astype(np.uint8), connectivity=8)
        size_R = np.bincount(region_HW.ravel(), minlength=regions)
        agreed_R = np.bincount(region_HW[other_HW == index], minlength=regions)
        share_R = agreed_R / np.maximum(size_R, 1)
        inside_HW = region_HW > 0
        share_HW[inside_HW] = share_R[region_HW[inside_HW]]
    return share_HW


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide by the sum over the last axis; NaN where that is 0."""
    total = counts.sum(axis=-1, keepdims=True)
    shares: NDArray[np.float64] = np.full(counts.shape, np.nan)
    np.divide(counts, total, out=shares, where=total > 0)
    return shares
