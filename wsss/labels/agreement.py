"""Pseudo labels on which class maps and the decoder agree.

Class maps know which pixels made a class likely in one image: they mark its telling parts and bleed past its edge. A
decoder trained on many such labels has averaged their accidents out, but drifts if it teaches itself alone. Their
normalised geometric mean, a product of experts (Hinton, 2002), is sure only where both are.

Shape suffixes: B images, C = K + 1 label channels with the background first, K classes, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.completion import BackgroundBand, PowerBackground

LEAST = 1e-4
"""Smallest probability of either side: neither forbids what the other is sure of."""


@torch.no_grad()
def joint_probabilities(
    scores_BKHW: Tensor,
    present_BK: Tensor,
    opinion_BCHW: Tensor,
    rule: PowerBackground | BackgroundBand,
    softness: float,
) -> Tensor:
    """The normalised geometric mean of what class maps and the decoder say of each pixel.

    Args:
        scores_BKHW: class scores in [0, 1].
        present_BK: bool, the image-level labels, on the host or with the scores.
        opinion_BCHW: the decoder's probabilities, of all classes.
        rule: gives the background a score to set against those of the classes.
        softness: difference of scores that changes the odds of the maps by a factor e.

    Returns:
        (B, C, H, W) float32; 0 for absent classes, each pixel sums to 1.
    """
    present_BK = present_BK.to(scores_BKHW.device, non_blocking=True)
    absent_BC = ~with_background(present_BK)

    def among_present(logits_BCHW: Tensor) -> Tensor:
        return logits_BCHW.masked_fill(absent_BC[:, :, None, None], -torch.inf).softmax(dim=1)

    best_BHW = scores_BKHW.masked_fill(~present_BK[:, :, None, None], 0).amax(dim=1, keepdim=True)
    maps_BCHW = among_present(torch.cat([rule.score(best_BHW), scores_BKHW], dim=1).float() / softness)
    heard_BCHW = among_present(opinion_BCHW.float().clamp_min(LEAST).log())
    return among_present(0.5 * (maps_BCHW.clamp_min(LEAST).log() + heard_BCHW.clamp_min(LEAST).log()))


def with_background(present_BK: Tensor) -> Tensor:
    """(B, C) bool: the background is in every image."""
    return torch.cat([present_BK.new_ones(len(present_BK), 1), present_BK], dim=1)


@dataclass(frozen=True, slots=True)
class Confidence:
    """A background rule for probabilities: the likeliest of all wins where it is likely enough.

    Attributes:
        background_HW: probability of the background, in [0, 1]; those of the classes are the scores.
        least: below it a pixel is ignored.
    """

    background_HW: Tensor
    least: float

    def score(self, best_HW: Tensor) -> Tensor:
        """Background score in [0, 1]."""
        return self.background_HW.to(best_HW)

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """The class index, 0 or IGNORE_INDEX: (H, W) uint8."""
        background_HW = self.score(best_HW)
        label_HW = class_HW.masked_fill(background_HW >= best_HW, 0)
        return label_HW.masked_fill(torch.maximum(background_HW, best_HW) < self.least, IGNORE_INDEX)
