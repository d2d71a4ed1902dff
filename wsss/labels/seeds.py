"""From class activation maps to class scores, and from scores to seeds.

Shape suffixes: K foreground classes, H rows, W columns; ``...`` any leading axes.
"""

import torch
from torch import Tensor


def normalise_scores(maps_KHW: Tensor, present_K: Tensor) -> Tensor:
    """Class scores: positive evidence, divided by the maximum of its class.

    Args:
        maps_KHW: (..., K, H, W) class activation maps, in any range.
        present_K: (..., K) bool, the image-level labels.

    Returns:
        (..., K, H, W) float32 in [0, 1]. The maximum of a present class is 1, unless it has no positive
        evidence: then it stays 0, as absent classes are.
    """
    evidence_KHW = maps_KHW.float().masked_fill(~present_K[..., None, None], 0.0).relu()
    peak_K11 = evidence_KHW.amax(dim=(-2, -1), keepdim=True)
    return evidence_KHW / peak_K11.masked_fill(peak_K11 == 0, 1.0)


def seed_labels(scores_KHW: Tensor, threshold: float) -> Tensor:
    """Read a label map straight off the scores.

    Args:
        scores_KHW: class scores in [0, 1], 0 for classes that are not present.
        threshold: up to it a pixel is background; at least 0.

    Returns:
        (H, W) uint8: the class index of the strongest score, or 0.
    """
    best_HW, class_HW = scores_KHW.max(dim=0)
    return (class_HW + 1).to(torch.uint8).masked_fill(~(best_HW > threshold), 0)
