"""From class maps to class scores.

Shape suffixes: K classes, H rows, W columns; ``...`` any leading axes.
"""

from torch import Tensor


def normalise_scores(maps_KHW: Tensor, present_K: Tensor) -> Tensor:
    """Class scores: positive evidence, divided by the maximum of its class.

    Args:
        maps_KHW: (..., K, H, W) class maps, in any range.
        present_K: (..., K) bool, the image-level labels.

    Returns:
        (..., K, H, W) float32 in [0, 1]. The maximum of a present class is 1, unless it has no positive
        evidence: then it stays 0, as absent classes are.
    """
    evidence_KHW = maps_KHW.float().masked_fill(~present_K[..., None, None], 0.0).relu()
    peak_K11 = evidence_KHW.amax(dim=(-2, -1), keepdim=True)
    return evidence_KHW / peak_K11.masked_fill(peak_K11 == 0, 1.0)
