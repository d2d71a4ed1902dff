"""How sure a network is of the classes of an image: one number a class, for review queues and label tools.

Shape suffixes: C label channels, R present classes, h x w grid, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def margins(grid_Chw: Tensor) -> dict[int, float]:
    """Mean margin, in [0, 1], of the places of the grid that a class wins: likeliest less second likeliest class.

    Args:
        grid_Chw: log-probabilities, the background first.

    Returns:
        Margin by class index; classes that win nowhere are left out.
    """
    best_2hw, index_2hw = grid_Chw.float().exp().topk(2, dim=0)
    return _means(best_2hw[0] - best_2hw[1], index_2hw[0])


def mean_scores(scores_Rhw: Tensor, tags: Sequence[int], label_HW: NDArray[Any]) -> dict[int, float]:
    """Mean class score, in [0, 1], of the places that a pseudo label gives to the class.

    Args:
        scores_Rhw: class scores of the present classes, in the order of ``tags``.
        tags: class indices from 0.
        label_HW: the pseudo label, class indices from 1.

    Returns:
        Score by class index; classes that no place of the grid has are left out.
    """
    size = (scores_Rhw.shape[1], scores_Rhw.shape[2])
    label_hw = F.interpolate(torch.from_numpy(label_HW)[None, None], size=size, mode="nearest-exact")[0, 0]
    found: dict[int, float] = {}
    for score_hw, tag in zip(scores_Rhw.float().cpu(), tags, strict=True):
        own_hw = label_hw == tag + 1
        if own_hw.any():
            found[tag + 1] = round(float(score_hw[own_hw].mean()), 4)
    return found


def _means(value_hw: Tensor, index_hw: Tensor) -> dict[int, float]:
    flat_N, index_N = value_hw.flatten().double(), index_hw.flatten()
    count_C = torch.bincount(index_N)
    sum_C = torch.bincount(index_N, flat_N)
    found = zip(sum_C.tolist(), count_C.tolist(), strict=True)
    return {index: round(total / count, 4) for index, (total, count) in enumerate(found) if count}
