"""Pseudo labels on which class maps and the decoder agree.

Class maps know which pixels made a class likely in one image: they mark its telling parts and bleed past its edge. A
decoder trained on many such labels has averaged their accidents out, but drifts if it teaches itself alone. Their
normalised geometric mean, a product of experts (Hinton, 2002), is sure only where both are.

Shape suffixes: B images, C = K + 1 label channels with the background first, K classes, S slots of present classes,
behind the background where both are there, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.completion import BackgroundBand, PowerBackground
from wsss.labels.slots import Slots

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
        present_BK: bool, the image-level labels, on the host.
        opinion_BCHW: the decoder's probabilities, of all classes.
        rule: gives the background a score to set against those of the classes.
        softness: difference of scores that changes the odds of the maps by a factor e.

    Returns:
        (B, C, H, W) float32; 0 for absent classes, each pixel sums to 1.
    """
    slots = Slots.of(present_BK, scores_BKHW.device)
    absent_BS = ~with_background(slots.taken_BS).to(scores_BKHW.device, non_blocking=True)

    def among_present(logits_BSHW: Tensor) -> Tensor:
        return logits_BSHW.masked_fill(absent_BS[:, :, None, None], -torch.inf).softmax(dim=1)

    scores_BSHW = slots.pack(scores_BKHW)
    background_B1HW = rule.score(scores_BSHW.amax(dim=1, keepdim=True))
    maps_BSHW = among_present(torch.cat([background_B1HW, scores_BSHW], dim=1) / softness)
    opinion_BSHW = torch.cat([opinion_BCHW[:, :1].float(), slots.pack(opinion_BCHW[:, 1:])], dim=1)
    heard_BSHW = among_present(opinion_BSHW.clamp_min(LEAST).log())
    joint_BSHW = among_present(0.5 * (maps_BSHW.clamp_min(LEAST).log() + heard_BSHW.clamp_min(LEAST).log()))
    joint_BCHW = torch.zeros_like(opinion_BCHW, dtype=torch.float32)
    joint_BCHW[:, 0] = joint_BSHW[:, 0]
    slots.unpack_(joint_BCHW[:, 1:], joint_BSHW[:, 1:])
    return joint_BCHW


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
