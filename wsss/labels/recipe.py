"""The way from class scores to a pseudo label, the same for `make-pseudo` and for end-to-end training.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsss.config import LabelsSection
from wsss.labels.completion import BackgroundBand, PowerBackground, complete_labels
from wsss.labels.pamr import pamr
from wsss.maps.scores import normalise_scores


def background_rule(section: LabelsSection) -> PowerBackground | BackgroundBand:
    """What a pixel must beat to belong to a class."""
    if section.background == "power":
        return PowerBackground(exponent=section.exponent)
    return BackgroundBand(low=section.low, high=section.high)


@torch.no_grad()
def refine(images_B3HW: Tensor, scores_BKHW: Tensor, present_BK: Tensor, section: LabelsSection) -> Tensor:
    """Make class scores follow the edges of the image (PAMR) and normalise them again.

    Args:
        images_B3HW: in [0, 1].
        scores_BKHW: class scores at image size.
        present_BK: bool.
        section: iterations (0 leaves the scores as they are) and dilations.
    """
    if section.pamr_iterations == 0:
        return normalise_scores(scores_BKHW, present_BK)
    refined = pamr(
        images_B3HW,
        scores_BKHW,
        present_BK,
        iterations=section.pamr_iterations,
        dilations=section.pamr_dilations,
    )
    return normalise_scores(refined, present_BK)


def complete(
    scores_KHW: Tensor, present_K: Tensor, section: LabelsSection, saliency_HW: Tensor | None = None
) -> Tensor:
    """The pseudo label of refined scores, (H, W) uint8; saliency in [0, 1] where it is given."""
    return complete_labels(
        scores_KHW,
        present_K,
        background=background_rule(section),
        saliency_HW=saliency_HW,
        saliency_threshold=section.saliency_threshold,
        mining_quantile=section.mining_quantile,
        opening=section.opening,
    )
