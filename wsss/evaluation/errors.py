"""Count the wrong pixels of a prediction by kind of error.

A lost pixel has a known true class and another prediction. Each has exactly one kind of error:

- ignored: the prediction is IGNORE_INDEX or no class index;
- missed: an object pixel predicted as background; less than FOUND_SHARE of its region has the right class;
- partial: an object pixel predicted as background; FOUND_SHARE or more of its region has the right class;
- wrong class: one foreground class predicted as another;
- bleeding: background predicted as class c, in a predicted region of c that contains a true pixel of c;
- invented: background predicted as class c, in a predicted region of c that contains none.

A region is an 8-connected component of one class: of the truth for partial and missed, of the prediction for
bleeding and invented. Regions of the truth end at IGNORE_INDEX. Regions of the prediction do not, so that an
unlabelled contour does not separate a halo from its object. The halo of an object with the wrong class is invented,
since its region contains no true pixel of that class. Each lost pixel is counted for one class: the predicted one if
it is bleeding or invented, else the true one.

By hand, one row of pixels from pixel 0, ``.`` background, ``?`` IGNORE_INDEX::

    truth   1 1 1 1 . . 2 2 . .
    one     1 1 . 2 . . . . 1 1     2 partial, 3 wrong class, 6 and 7 missed, 8 and 9 invented
    other   1 1 1 1 1 . . ? . .     4 bleeding, 6 missed, 7 ignored

After Hoiem, Chodpathumwan, Dai: Diagnosing error in object detectors (ECCV 2012). There a detection finds an object if
the IoU of their boxes is at least 0.1; here the threshold is on the share of a region.

Shape suffixes: C classes with the background, E kinds of error, R regions of an image (region 0 is everything outside
the others), H rows, W columns, P pixels in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, PIXELS_AT_ONCE, count_indices
from wsss.evaluation.confusion import Values, checked_labels

FOUND_SHARE = 0.1
"""An object counts as found if at least this share of its region is predicted as its class."""


class ErrorKind(IntEnum):
    """The kinds of error, as columns of the counts; defined in the docstring of the module."""

    MISSED = 0
    PARTIAL = 1
    WRONG_CLASS = 2
    BLEEDING = 3
    INVENTED = 4
    IGNORED = 5


NO_ERROR = len(ErrorKind)
"""In a map of kinds: a pixel that is right, or whose truth is IGNORE_INDEX."""


class ErrorCounts:
    """Lost pixels of a whole data set by class (row) and kind (column).

    Their sum equals the sum of the confusion matrix off its diagonal.

    Attributes:
        counts: (C, E) int64, pixels.
    """

    def __init__(self, num_classes: int) -> None:
        """Start with zero counts; ``num_classes`` is C, background included, at most 255."""
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
            ValueError: the shapes differ or are not (H, W), a dtype is not integer, or the truth has another value.
        """
        label_HW, truth_HW = checked_labels(label_HW, truth_HW, self.num_classes)
        known_HW = (label_HW >= 0) & (label_HW < self.num_classes)
        label_HW = np.where(known_HW, label_HW, IGNORE_INDEX).astype(np.uint8)
        kind_HW = error_kinds(label_HW, truth_HW)
        for kind in ErrorKind:
            class_HW = label_HW if kind in (ErrorKind.BLEEDING, ErrorKind.INVENTED) else truth_HW
            of_kind_P = class_HW[kind_HW == kind]
            self.counts[:, kind] += np.bincount(of_kind_P, minlength=self.num_classes)

    def shares(self) -> NDArray[np.float64]:
        """Share of each kind in all lost pixels: (E,) in [0, 1], NaN where nothing is lost."""
        return _shares(self.counts.sum(axis=0))

    def per_class(self) -> NDArray[np.float64]:
        """Share of each kind in the lost pixels of each class: (C, E) in [0, 1], NaN where a class lost nothing."""
        return _shares(self.counts)


def error_kinds(label_HW: NDArray[Any], truth_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """The kind of error of every pixel.

    Args:
        label_HW: the prediction, class indices 0..K or IGNORE_INDEX.
        truth_HW: class indices 0..K or IGNORE_INDEX.

    Returns:
        (H, W) uint8, an ErrorKind or NO_ERROR.

    Raises:
        ValueError: the arrays are not single images (H, W).
    """
    if truth_HW.ndim != 2:
        raise ValueError(f"expected one image (H, W), got {truth_HW.shape}")
    kind_HW = np.full(truth_HW.shape, ErrorKind.INVENTED, dtype=np.uint8)
    kind_HW[_in_regions(label_HW, truth_HW, lambda share_R: share_R > 0)] = ErrorKind.BLEEDING
    kind_HW[truth_HW != 0] = ErrorKind.WRONG_CLASS
    kind_HW[label_HW == 0] = ErrorKind.MISSED
    found_HW = _in_regions(truth_HW, label_HW, lambda share_R: share_R >= FOUND_SHARE)
    kind_HW[found_HW & (label_HW == 0)] = ErrorKind.PARTIAL
    kind_HW[label_HW == IGNORE_INDEX] = ErrorKind.IGNORED
    kind_HW[(truth_HW == IGNORE_INDEX) | (label_HW == truth_HW)] = NO_ERROR
    return kind_HW


def _in_regions(
    label_HW: NDArray[Any], other_HW: NDArray[Any], wanted: Callable[[NDArray[np.float64]], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """(H, W), True in the foreground regions that are wanted.

    ``wanted`` gets, for each region of ``label_HW``, the share of its pixels that have the same class in ``other_HW``.
    """
    inside_HW = np.zeros(label_HW.shape, dtype=np.bool_)
    for index in count_indices(label_HW.astype(np.uint8, copy=False)):
        if index in (0, IGNORE_INDEX):
            continue
        regions, region_HW = cv2.connectedComponents((label_HW == index).astype(np.uint8), connectivity=8)
        size_R = histogram(region_HW, regions)
        share_R = histogram(region_HW[other_HW == index], regions) / np.maximum(size_R, 1)
        wanted_R = wanted(share_R)
        wanted_R[0] = False
        inside_HW |= wanted_R[region_HW]
    return inside_HW


def histogram(region_P: NDArray[Any], regions: int) -> NDArray[np.int64]:
    """Number of pixels of each region, (R,); counted in parts, because bincount converts each pixel to 8 bytes."""
    flat, counts = region_P.reshape(-1), np.zeros(regions, dtype=np.int64)
    for start in range(0, flat.size, PIXELS_AT_ONCE):
        counts += np.bincount(flat[start : start + PIXELS_AT_ONCE], minlength=regions)
    return counts


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide counts by their sum over the last axis; NaN where the sum is 0."""
    total = counts.sum(axis=-1, keepdims=True)
    shares: NDArray[np.float64] = np.full(counts.shape, np.nan)
    np.divide(counts, total, out=shares, where=total > 0)
    return shares
