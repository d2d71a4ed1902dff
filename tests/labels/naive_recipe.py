"""The recipe of one image in plain dense code, without bands and ragged maps; `test_parity.py` compares with it.

Shape suffixes: C = K + 1 label channels, K classes, R present classes, H x W pixels, h x w grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.labels.pamr import DILATIONS, pamr_affinity, pamr_apply
from wsss.labels.recipe import strided


def naive_label(
    image_3HW: Tensor,
    scores_Khw: Tensor,
    present_K: Tensor,
    section: LabelsSection,
    *,
    logits_CHW: Tensor | None = None,
    refine_first: bool = False,
    saliency_HW: Tensor | None = None,
    opening: int,
) -> Tensor:
    """(H, W) uint8; ``saliency_HW`` in [0, 1], ``logits_CHW`` at image size."""
    size = (image_3HW.shape[1], image_3HW.shape[2])
    classes = present_K.nonzero().flatten()
    scores_1KHW = F.interpolate(scores_Khw[None], size=size, mode="bilinear", align_corners=False)
    scores_RHW = scores_1KHW[0, classes]
    if logits_CHW is None or refine_first:
        scores_RHW = _refined(image_3HW, scores_RHW, section)
    scores_RHW = scores_RHW.relu()
    if len(classes):
        peak_R11 = scores_RHW.amax(dim=(1, 2), keepdim=True)
        scores_RHW = scores_RHW / peak_R11.masked_fill(peak_R11 == 0, 1)
    background_HW = None
    if logits_CHW is not None:
        joint_CHW = _joint(scores_RHW, logits_CHW.softmax(dim=0)[[0, *(classes + 1).tolist()]], section)
        if not refine_first:
            joint_CHW = _refined(image_3HW, joint_CHW, section)
        background_HW, scores_RHW = joint_CHW[0], joint_CHW[1:]
    best_HW, label_HW = torch.zeros(size), torch.zeros(size, dtype=torch.uint8)
    if len(classes):
        best_HW, rank_HW = scores_RHW.max(dim=0)
        label_HW = (classes + 1).to(torch.uint8)[rank_HW]
    if background_HW is not None:
        label_HW[background_HW >= best_HW] = 0
        label_HW[torch.maximum(background_HW, best_HW) < section.confidence] = IGNORE_INDEX
    elif section.background == "power":
        label_HW[~(best_HW > (1 - best_HW) ** section.exponent)] = 0
    else:
        label_HW[best_HW <= section.high] = IGNORE_INDEX
        label_HW[best_HW <= section.low] = 0
    if saliency_HW is not None:
        label_HW = _with_saliency(label_HW, scores_RHW, classes, saliency_HW, section)
    return _opened(label_HW, opening)


def _refined(image_3HW: Tensor, maps_RHW: Tensor, section: LabelsSection) -> Tensor:
    if section.pamr_iterations == 0 or len(maps_RHW) == 0:
        return maps_RHW
    size, stride = image_3HW.shape[1:], section.pamr_stride
    coarse = [max(1, round(side / stride)) for side in size]

    def at(maps: Tensor, shape: list[int]) -> Tensor:
        smaller = math.prod(shape) < math.prod(maps.shape[2:])
        if shape == list(maps.shape[2:]):
            return maps
        return F.interpolate(maps, size=shape, mode="bilinear", align_corners=False, antialias=smaller)

    dilations = strided(DILATIONS, stride)
    affinity = pamr_affinity(at(image_3HW[None], coarse), dilations)
    refined = pamr_apply(affinity, at(maps_RHW[None], coarse), iterations=section.pamr_iterations, dilations=dilations)
    return at(refined, list(size))[0]


def _joint(scores_RHW: Tensor, decoder_CHW: Tensor, section: LabelsSection) -> Tensor:
    """Over the background and the present classes."""
    best_HW = scores_RHW.amax(dim=0) if len(scores_RHW) else torch.zeros(decoder_CHW.shape[1:])
    if section.background == "power":
        background_HW = (1.0 - best_HW) ** section.exponent
    else:
        background_HW = torch.full_like(best_HW, (section.low + section.high) / 2)
    maps_CHW = (torch.cat([background_HW[None], scores_RHW]) / section.softness).softmax(dim=0)
    decoder_CHW = decoder_CHW.clamp_min(1e-4).log().softmax(dim=0)
    return (0.5 * (maps_CHW.clamp_min(1e-4).log() + decoder_CHW.clamp_min(1e-4).log())).softmax(dim=0)


def _with_saliency(
    label_HW: Tensor, scores_RHW: Tensor, classes: Tensor, saliency_HW: Tensor, section: LabelsSection
) -> Tensor:
    salient_HW = saliency_HW > section.saliency_threshold
    label_HW[label_HW == 0] = IGNORE_INDEX
    label_HW[~salient_HW] = 0
    claims_HW = torch.zeros_like(label_HW)
    for k, scores_HW in zip(classes.tolist(), scores_RHW, strict=True):
        positive = scores_HW[scores_HW > 0].sort().values
        limit = positive[math.floor(section.mining_quantile * (len(positive) - 1))] if len(positive) else 0
        claimed_HW = (scores_HW > limit) & ~salient_HW
        label_HW[claimed_HW] = k + 1
        claims_HW += claimed_HW
    label_HW[claims_HW > 1] = IGNORE_INDEX
    return label_HW


def _opened(label_HW: Tensor, size: int) -> Tensor:
    """Erosion, then dilation by the mirrored square, computed from slices."""
    if size <= 1:
        return label_HW
    foreground_HW = (label_HW != 0) & (label_HW != IGNORE_INDEX)
    before, after = size // 2, size - 1 - size // 2
    rows, columns = label_HW.shape
    opened_HW = torch.zeros_like(foreground_HW)
    for y in range(rows):
        for x in range(columns):
            if foreground_HW[max(0, y - before) : y + after + 1, max(0, x - before) : x + after + 1].all():
                opened_HW[max(0, y - before) : y + after + 1, max(0, x - before) : x + after + 1] = True
    return label_HW.masked_fill(foreground_HW & ~opened_HW, 0)
