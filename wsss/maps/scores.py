"""From class maps to class scores: positive evidence, divided by the largest value of its map.

Shape suffixes: R present (image, class) pairs, h x w the size of a map.
"""

from torch import Tensor

from wsss.maps.present import PresentMaps


def normalise_scores(maps: PresentMaps) -> PresentMaps:
    """Class scores in [0, 1] from class maps in any range; see `normalised`."""
    return maps.with_values(normalised(maps.values_Rhw))


def normalised(maps_Rhw: Tensor) -> Tensor:
    """Negative values become 0, then each map is divided by its maximum.

    Args:
        maps_Rhw: in any range.

    Returns:
        (R, h, w) float32 in [0, 1]. The maximum of a map is 1; a map without a positive value is 0 everywhere.
    """
    evidence_Rhw = maps_Rhw.float().relu()
    if evidence_Rhw.numel() == 0:
        return evidence_Rhw
    peak_R11 = evidence_Rhw.amax(dim=(-2, -1), keepdim=True)
    return evidence_Rhw / peak_R11.masked_fill(peak_R11 == 0, 1.0)
