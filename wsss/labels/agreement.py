"""Pseudo labels on which class maps and the decoder agree.

Class maps show which pixels made a class likely in one image: they are strong on its telling parts and go beyond its
edge. A decoder trained on many such labels averages these errors out, but learns its own errors when it is trained on
its own output. The normalised geometric mean of both, a product of experts (Hinton, 2002), is near 1 only where both
are.

Shape suffixes: B images, C = K + 1 label channels with the background first, K classes, S slots of present classes, T
= S + 1 slots with the background first, R present (image, class) pairs, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.completion import BackgroundBand, PowerBackground
from wsss.maps.present import PresentMaps

LEAST = 1e-4
"""Smallest probability of either side, so that neither alone can rule a class out."""


@torch.no_grad()
def joint_probabilities(
    scores: PresentMaps,
    decoder: PresentMaps,
    rule: PowerBackground | BackgroundBand,
    softness: float,
) -> PresentMaps:
    """The normalised geometric mean of the probabilities of class maps and decoder.

    Args:
        scores: class scores in [0, 1], of K classes.
        decoder: the decoder's probabilities of the background and of the same classes, of the same size; its channel 0
            is the background, channel k + 1 the class k (`with_background` makes this layout).
        rule: computes the background's score from those of the classes.
        softness: a difference of scores of this size changes the odds of the maps by a factor e.

    Returns:
        maps in the layout of ``decoder``; each pixel of an image sums to 1.
    """
    absent_BT = ~decoder.taken.to(scores.device, non_blocking=True)

    def among_present(logits_BTHW: Tensor) -> Tensor:
        return logits_BTHW.masked_fill(absent_BT[:, :, None, None], -torch.inf).softmax(dim=1)

    scores_BSHW = scores.pack()
    background_B1HW = rule.score(scores_BSHW.amax(dim=1, keepdim=True))
    scores_BTHW = torch.cat([background_B1HW, scores_BSHW], dim=1)[:, : absent_BT.shape[1]]
    maps_BTHW = among_present(scores_BTHW / softness)
    decoder_BTHW = among_present(decoder.pack().clamp_min(LEAST).log())
    joint_BTHW = among_present(0.5 * (maps_BTHW.clamp_min(LEAST).log() + decoder_BTHW.clamp_min(LEAST).log()))
    return decoder.unpack(joint_BTHW)


def with_background(present_BK: Tensor) -> Tensor:
    """(B, C) bool: the image-level labels with the background, present in every image, as channel 0."""
    return torch.cat([present_BK.new_ones(len(present_BK), 1), present_BK], dim=1)


def split_background(maps: PresentMaps) -> tuple[Tensor, PresentMaps]:
    """The background (B, H, W) and the maps of the K classes, from maps with the background as channel 0."""
    classes_R = maps.class_R > 0
    index_B, index_R = ((classes_R == chosen).nonzero().flatten() for chosen in (False, True))
    index_B, index_R = (index.to(maps.device, non_blocking=True) for index in (index_B, index_R))
    image_R, class_R = maps.image_R[classes_R], maps.class_R[classes_R] - 1
    values_RHW = maps.values_Rhw[index_R]
    return maps.values_Rhw[index_B], PresentMaps(values_RHW, image_R, class_R, maps.num_images, maps.num_classes - 1)


@dataclass(frozen=True, slots=True)
class Confidence:
    """The background rule for probabilities: the most likely of all wins where it is likely enough.

    Attributes:
        least: pixels whose largest probability is below it become IGNORE_INDEX; in [0, 1].
    """

    least: float

    def label(self, best_BHW: Tensor, class_BHW: Tensor, background_BHW: Tensor | None = None) -> Tensor:
        """(B, H, W) uint8: the class index, 0 or IGNORE_INDEX; all are probabilities in [0, 1]."""
        assert background_BHW is not None
        label_BHW = class_BHW.masked_fill(background_BHW >= best_BHW, 0)
        return label_BHW.masked_fill(torch.maximum(background_BHW, best_BHW) < self.least, IGNORE_INDEX)
