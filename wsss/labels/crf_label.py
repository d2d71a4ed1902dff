"""The dense CRF at a bounded area, and the label map at the size of the photo that follows from it.

Shape suffixes: C candidate classes, h x w the size at which the CRF runs, H x W pixels of the photo.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import CrfSection
from wsss.data.scaled import reduced_size, resize
from wsss.labels.bands import labels_from_grid
from wsss.labels.crf import MIN_PROBABILITY, Crf, crf_probabilities


def crf_size(height: int, width: int, section: CrfSection) -> tuple[int, int]:
    """(h, w) at which the CRF refines a photo: its size, or that of ``side`` squared pixels where it is larger."""
    return reduced_size(height, width, section.side)


def crf_label(
    image_HW3: NDArray[np.uint8],
    scores_Chw: Tensor,
    index_C: Tensor,
    size: tuple[int, int],
    section: CrfSection,
    crf: Crf = crf_probabilities,
) -> Tensor:
    """The label map of a photo after the dense CRF over some candidate classes.

    Args:
        image_HW3: RGB, 0 to 255: the photo, or a copy reduced to no less than (h, w).
        scores_Chw: of the candidates, in [0, 1], on the CPU, at the `crf_size` of the photo; need not sum to 1.
        index_C: uint8, their class indices, ascending.
        size: (H, W) of the photo.
        section: the settings.
        crf: runs `crf_probabilities`, here or in another process.

    Returns:
        (H, W) uint8; everything is the first candidate, without running the CRF, where it is the only one.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    if len(index_C) == 1:
        return torch.full(size, int(index_C[0]), dtype=torch.uint8)
    at = (scores_Chw.shape[1], scores_Chw.shape[2])
    if image_HW3.shape[:2] != at:
        image_HW3 = resize(torch.from_numpy(image_HW3), at).permute(1, 2, 0).contiguous().numpy()
    refined_Chw = torch.from_numpy(np.ascontiguousarray(crf(image_HW3, scores_Chw.float().numpy(), section)))
    if at == size:
        return index_C[refined_Chw.argmax(dim=0)]
    label_HW = labels_from_grid(refined_Chw.clamp_min(MIN_PROBABILITY).log(), size)
    for channel in range(len(index_C) - 1, -1, -1):  # from the last: a candidate's class index is not below its place
        label_HW.masked_fill_(label_HW == channel, int(index_C[channel]))
    return label_HW
