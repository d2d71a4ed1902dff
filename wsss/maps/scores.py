"""From class maps to class scores.

Shape suffixes: K classes, H rows, W columns; ``...`` any leading axes.
"""

from torch import Tensor


def normalise_scores(maps_KHW: Tensor, present_K: Tensor) -> Tensor:
    """Class scores: positive evidence, divided by the maximum of its class.

    Args:
        maps_KHW: (..., K, H, W) class maps, in any range.
        present_K: (..., K) bool, the image-level labels, on the host or with the maps.

    Returns:
        (..., K, H, W) float32 in [0, 1]. The maximum of a present class is 1, unless it has no positive
        evidence: then it stays 0, as absent classes are.
    """
    absent_K = ~present_K.to(maps_KHW.device, non_blocking=True)
    evidence_KHW = maps_KHW.float().masked_fill(absent_K[..., None, None], 0.0).relu()
    peak_K11 = evidence_KHW.amax(dim=(-2, -1), keepdim=True)
    return evidence_KHW / peak_K11.masked_fill(peak_K11 == 0, 1.0)
