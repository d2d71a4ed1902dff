"""Turn class scores into pseudo labels: background, masking by saliency, mining, removal of small regions.

After the activation-aware label completion of GETAM (Sun et al., arXiv 2112.02841). Saliency is extra supervision;
without it a background rule decides alone. All work at the size of the label map, on a batch, and in bands of rows:
scores come on any grid, and only one band of them exists at label size.

Shape suffixes: B images, R present (image, class) pairs, S slots of an image, h x w grid of the scores, H rows, W
columns of the labels, Y rows of a band.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config import LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.labels.bands import BAND_VALUES, upsampled_bands
from wsss.maps.present import PresentMaps

DEFAULTS = LabelsSection()


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerBackground:
    """The background scores ``(1 - strongest class score) ** exponent`` and competes with the classes.

    It wins where it is at least as strong; with exponent 32 that is up to a class score of about 0.077. The default is
    that of the config, which is the published one.
    """

    exponent: float = DEFAULTS.exponent

    def score(self, best_BHW: Tensor) -> Tensor:
        """Background score in [0, 1] from the strongest class score of each pixel, in [0, 1]."""
        return (1.0 - best_BHW.float()) ** self.exponent

    def label(self, best_BHW: Tensor, class_BHW: Tensor, background_BHW: Tensor | None = None) -> Tensor:
        """The class index where the class beats the background, else 0: (B, H, W) uint8."""
        return class_BHW.masked_fill(~(best_BHW > self.score(best_BHW)), 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundBand:
    """Thresholds on the strongest class score of a pixel.

    Up to ``low`` it is background, above ``high`` foreground; between them it is ignored. The defaults are those of the
    config, which suit maps that were spread. For published maps the power rule is the published one.
    """

    low: float = DEFAULTS.low
    high: float = DEFAULTS.high

    def score(self, best_BHW: Tensor) -> Tensor:
        """Background score: the middle of the band everywhere."""
        return torch.full_like(best_BHW, (self.low + self.high) / 2)

    def label(self, best_BHW: Tensor, class_BHW: Tensor, background_BHW: Tensor | None = None) -> Tensor:
        """The class index, IGNORE_INDEX or 0: (B, H, W) uint8."""
        label_BHW = class_BHW.masked_fill(~(best_BHW > self.high), IGNORE_INDEX)
        return label_BHW.masked_fill(~(best_BHW > self.low), 0)


class Background(Protocol):
    """A rule that tells the background from the classes."""

    def label(self, best_BHW: Tensor, class_BHW: Tensor, background_BHW: Tensor | None = None) -> Tensor:
        """(B, H, W) uint8 class indices.

        Args:
            best_BHW: strongest class score of each pixel, in [0, 1].
            class_BHW: uint8, the class index that has it, 1..K; 0 in images without a class.
            background_BHW: the background's probability, for rules that compare with it.
        """
        ...


@torch.no_grad()
def complete_labels(
    scores: PresentMaps,
    size: tuple[int, int],
    *,
    background: Background | Tensor,
    background_Bhw: Tensor | None = None,
    saliency_BHW: Tensor | None = None,
    saliency_threshold: float = DEFAULTS.saliency_threshold,
    mining_quantile: float = DEFAULTS.mining_quantile,
    opening: int = DEFAULTS.opening,
) -> Tensor:
    """Give each pixel a present class, the background or IGNORE_INDEX.

    Args:
        scores: class scores in [0, 1], refined, each divided by its maximum, on any grid.
        size: (H, W) of the labels; scores are upsampled to it, bilinear, a band of rows at a time.
        background: the rule that a pixel must pass to belong to a class, or (B, H, W) uint8 class indices that are
            decided already, of a dense CRF.
        background_Bhw: the background's probability on the grid of the scores, for a rule that needs it.
        saliency_BHW: how much each pixel stands out: uint8 in 0..255, bool, or floating point in [0, 1]; None where no
            such map is used. With it the pixels that the rule does not give to a class become IGNORE_INDEX, those that
            do not stand out background, and strong scores among the latter are mined back.
        saliency_threshold: in [0, 1]; above it a pixel is salient.
        mining_quantile: quantile of the positive scores of a class, on their grid, above which they are mined; used
            with saliency alone.
        opening: side, in pixels, of the square that a foreground region must hold; 0 or 1 keeps everything.

    Returns:
        (B, H, W) uint8, on the device of the scores.
    """
    label_BHW = torch.empty(scores.num_images, *size, dtype=torch.uint8, device=scores.device)
    limit_R = None if saliency_BHW is None else mining_limits(scores, mining_quantile)
    for rows, some, background_BYW in _bands(scores, background_Bhw, size):
        if isinstance(background, Tensor):
            label_BYW = background[:, rows]
        else:
            label_BYW = background.label(*strongest(some), background_BYW)
        if saliency_BHW is not None and limit_R is not None:
            salient_BYW = is_salient(saliency_BHW[:, rows], saliency_threshold)
            label_BYW = mask_by_saliency(label_BYW, salient_BYW)
            label_BYW = mine(label_BYW, some, limit_R, ~salient_BYW)
        label_BHW[:, rows] = label_BYW
    return remove_speckles(label_BHW, opening)


def _bands(
    scores: PresentMaps, background_Bhw: Tensor | None, size: tuple[int, int]
) -> Iterator[tuple[slice, PresentMaps, Tensor | None]]:
    """Bands of rows of the scores and of the background at label size."""
    count, values = len(scores.values_Rhw), scores.values_Rhw.float()
    if background_Bhw is not None:
        values = torch.cat([values, background_Bhw.float()])
    # a label band holds B more values a pixel, also where no class is present
    most = BAND_VALUES * max(1, len(values)) // (len(values) + 3 * scores.num_images)
    for rows, band in upsampled_bands(values, size, max_values=most):
        yield rows, scores.with_values(band[:count]), None if background_Bhw is None else band[count:]


def strongest(scores: PresentMaps) -> tuple[Tensor, Tensor]:
    """Strongest score of each pixel and the uint8 class index that has it, (B, H, W); 0 and 0 without any class."""
    packed_BSHW = scores.pack()
    best_BHW, slot_BHW = packed_BSHW.max(dim=1)
    class_BS = torch.zeros(packed_BSHW.shape[:2], dtype=torch.uint8)
    class_BS[scores.image_R, scores.slots] = (scores.class_R + 1).to(torch.uint8)
    class_BS = class_BS.to(scores.device, non_blocking=True)
    return best_BHW, class_BS.gather(1, slot_BHW.flatten(1)).view_as(slot_BHW)


def is_salient(saliency_BHW: Tensor, threshold: float) -> Tensor:
    """(B, H, W) bool: above the threshold in [0, 1]; 8 bits are divided by 255 first."""
    if saliency_BHW.dtype == torch.uint8:
        saliency_BHW = saliency_BHW.float() / 255
    return saliency_BHW > threshold


def mask_by_saliency(label_BHW: Tensor, salient_BHW: Tensor) -> Tensor:
    """Salient pixels without a class become IGNORE_INDEX, those that are not salient background."""
    return label_BHW.masked_fill(label_BHW == 0, IGNORE_INDEX).masked_fill(~salient_BHW, 0)


def mine(label_BHW: Tensor, scores: PresentMaps, limit_R: Tensor, where_BHW: Tensor) -> Tensor:
    """Give each present class its strongest pixels; those that two classes claim become IGNORE_INDEX.

    Args:
        label_BHW: uint8, the labels so far.
        scores: in [0, 1], of the same size.
        limit_R: a class claims the pixels above it.
        where_BHW: bool, the pixels that may be mined.

    Returns:
        (B, H, W) uint8.
    """
    label_BHW = label_BHW.clone()
    claims_BHW = torch.zeros_like(label_BHW)
    pairs = zip(scores.image_R.tolist(), scores.class_R.tolist(), scores.values_Rhw, limit_R, strict=True)
    for b, k, scores_HW, limit in pairs:
        claimed_HW = (scores_HW > limit) & where_BHW[b]
        label_BHW[b].masked_fill_(claimed_HW, k + 1)
        claims_BHW[b] += claimed_HW
    return label_BHW.masked_fill_(claims_BHW > 1, IGNORE_INDEX)


def mining_limits(scores: PresentMaps, quantile: float) -> Tensor:
    """(R,): `high_activation` of each map, over the whole of it."""
    limits = [high_activation(scores_hw, quantile) for scores_hw in scores.values_Rhw]
    return torch.stack(limits) if limits else scores.values_Rhw.new_zeros(0)


def high_activation(scores_hw: Tensor, quantile: float) -> Tensor:
    """The score to exceed to lie above a quantile of the positive scores, a scalar; 0 where none is positive.

    It is the last score at or below the quantile: no score lies between the two, so the same scores are above both. The
    number of ranked scores does not depend on how many are positive, which would need a device synchronisation.
    """
    positive_hw = scores_hw > 0
    count = positive_hw.sum()
    above = count - (quantile * (count - 1).double()).floor().long()
    most = scores_hw.numel() - math.floor(quantile * (scores_hw.numel() - 1))
    ranked = scores_hw.masked_fill(~positive_hw, 0).flatten().topk(most).values
    return ranked.take(above.clamp(1, most) - 1)


def remove_speckles(label_BHW: Tensor, size: int) -> Tensor:
    """Foreground that the opening with a square removes becomes background, in place; IGNORE_INDEX stays.

    In bands of rows, each with ``size - 1`` rows more on both sides: no pixel outside decides about one inside. Needs
    two bytes a pixel beside the labels.

    Args:
        label_BHW: uint8.
        size: side of the square, in pixels; 0 or 1 removes nothing.

    Returns:
        ``label_BHW``.
    """
    if size <= 1:
        return label_BHW
    foreground_BHW = (label_BHW != 0).logical_and_(label_BHW != IGNORE_INDEX)
    batch, height, width = label_BHW.shape
    step, halo = max(BAND_VALUES // (batch * width), size), size - 1
    for top in range(0, height, step):
        first, rows = max(0, top - halo), slice(top, min(top + step, height))
        some_BYW = foreground_BHW[:, first : rows.stop + halo]
        removed_BYW = some_BYW & ~opened(some_BYW, size)
        label_BHW[:, rows].masked_fill_(removed_BYW[:, top - first : rows.stop - first], 0)
    return label_BHW


def opened(mask_BHW: Tensor, size: int) -> Tensor:
    """Morphological opening of a bool mask with a ``size`` x ``size`` square.

    Erosion, then dilation by the mirrored square: nothing moves and nothing is added. OpenCV's MORPH_OPEN does not
    mirror, which moves every region by a pixel where the size is even; otherwise the two agree: the anchor is at
    ``size // 2``, and pixels beyond the border take no part. Our own code, since a bool takes one byte a pixel and runs
    on CUDA; ``max_pool2d`` needs floats.
    """
    before = size // 2
    eroded_BHW = ~dilated(~mask_BHW, before, size - 1 - before)
    return dilated(eroded_BHW, size - 1 - before, before)


def dilated(mask_BHW: Tensor, before: int, after: int) -> Tensor:
    """Whether a pixel within ``before`` up or left to ``after`` down or right of each is set in a bool mask."""
    size = before + after + 1
    padded = F.pad(mask_BHW, (before, after, before, after))
    return window_any(window_any(padded, size, dim=-2), size, dim=-1)


def window_any(mask: Tensor, size: int, *, dim: int) -> Tensor:
    """Logical or over ``size`` successive entries along an axis; windows double until wide enough."""
    width = 1
    while width < size:
        step = min(width, size - width)
        length = mask.shape[dim] - step
        mask = mask.narrow(dim, 0, length) | mask.narrow(dim, step, length)
        width += step
    return mask
