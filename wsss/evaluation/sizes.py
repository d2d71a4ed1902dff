"""Scores by the size of objects: a mean over classes hides that small ones are lost.

The size of a class in an image is its share of the image's scored pixels; that of a part, an 8-connected region of one
class, likewise. Sizes fall into ``BINS``: under 1%, 1 to 5%, 5 to 20%, and more.

- IoU of a bin: over all pairs of an image and a class of this size there, the sum of the pixels that both have divided
  by the sum of those that one of them has. Pixels predicted as a class that the image does not have are in no bin;
  ``absent`` counts them, so that none is hidden.
- A part is found if at least half of its pixels are predicted as its class; recall of a bin is the share of its parts
  that are found. Parts end at IGNORE_INDEX.

By hand, one row of 10 pixels, ``.`` background::

    truth   1 1 1 1 . . 2 . . 1     class 1 has 50% in parts of 40% and 10%, class 2 has 10%
    label   1 1 . . . 2 . . . 1     class 1: IoU 3/5, parts 2 of 4 and 1 of 1 found; class 2: IoU 0/2, part not found

Shape suffixes: S size bins, R regions, H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, count_indices
from wsss.evaluation.confusion import Values, checked_labels
from wsss.evaluation.errors import histogram

BINS = (0.01, 0.05, 0.2)
"""Shares of an image at which the next bin begins."""
BIN_NAMES = ("<1%", "1-5%", "5-20%", ">20%")
FOUND = 0.5
"""A part is found if at least this share of its pixels is predicted as its class."""


class SizeCounts:
    """Pixels and parts of a whole data set by the size of the class or part.

    Attributes:
        both_S, either_S: (S,) int64, pixels that have a class in truth and prediction, or in one of them.
        pairs_S: (S,) int64, pairs of an image and a class.
        found_S, parts_S: (S,) int64, parts that are found, and all.
        absent: pixels predicted as a class that their image does not have.
        scored: pixels whose true class is known.
    """

    def __init__(self, num_classes: int) -> None:
        """Start with zero counts; ``num_classes`` is C, background included."""
        self.num_classes = num_classes
        self.both_S, self.either_S, self.pairs_S, self.found_S, self.parts_S = np.zeros((5, len(BIN_NAMES)), np.int64)
        self.absent = self.scored = 0

    def update(self, label_HW: Values, truth_HW: Values) -> None:
        """Count one image.

        Args:
            label_HW: the prediction, class indices of any integer dtype.
            truth_HW: class indices 0..C-1 or IGNORE_INDEX.

        Raises:
            ValueError: the shapes differ or are not (H, W), a dtype is not integer, or the truth has another value.
        """
        label_HW, truth_HW = checked_labels(label_HW, truth_HW, self.num_classes)
        known_HW = truth_HW != IGNORE_INDEX
        scored = int(known_HW.sum())
        self.scored += scored
        present = [index for index in count_indices(truth_HW.astype(np.uint8)) if index not in (0, IGNORE_INDEX)]
        for index in range(1, self.num_classes):
            true_HW, said_HW = truth_HW == index, (label_HW == index) & known_HW
            if index not in present:
                self.absent += int(said_HW.sum())
                continue
            size = np.digitize(true_HW.sum() / scored, BINS)
            self.pairs_S[size] += 1
            self.both_S[size] += (true_HW & said_HW).sum()
            self.either_S[size] += (true_HW | said_HW).sum()
            regions, region_HW = cv2.connectedComponents(true_HW.astype(np.uint8), connectivity=8)
            size_R, hit_R = (histogram(region_HW[mask_HW], regions)[1:] for mask_HW in (true_HW, true_HW & said_HW))
            bin_R = np.digitize(size_R / scored, BINS)
            self.parts_S += np.bincount(bin_R, minlength=len(BIN_NAMES))
            self.found_S += np.bincount(bin_R[hit_R >= FOUND * size_R], minlength=len(BIN_NAMES))

    def iou(self) -> NDArray[np.float64]:
        """(S,) IoU in [0, 1]; NaN where there is no class of this size."""
        return _divided(self.both_S, self.either_S)

    def recall(self) -> NDArray[np.float64]:
        """(S,) share of the parts that are found, in [0, 1]; NaN where there is none."""
        return _divided(self.found_S, self.parts_S)


def _divided(part_S: NDArray[np.int64], whole_S: NDArray[np.int64]) -> NDArray[np.float64]:
    quotient_S = np.full(len(whole_S), np.nan)
    np.divide(part_S, whole_S, out=quotient_S, where=whole_S > 0)
    return quotient_S
