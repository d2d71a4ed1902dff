"""Turn class scores into a pseudo label: background, masking by saliency, mining, speckle removal.

After the activation-aware label completion of GETAM (Sun et al., arXiv 2112.02841). Saliency is extra
supervision; without it a background rule decides alone.

Shape suffixes: K foreground classes, R of them present, H rows, W columns.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerBackground:
    """The background scores ``(1 - strongest class score) ** exponent`` and competes with the classes.

    It wins where it is at least as strong; with exponent 32 that is up to a class score of about 0.077.
    """

    exponent: float = 32.0

    def score(self, best_HW: Tensor) -> Tensor:
        """Background score in [0, 1] from the strongest class score of each pixel, in [0, 1]."""
        return (1.0 - best_HW.float()) ** self.exponent

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """The class index where the class beats the background, else 0: (H, W) uint8."""
        return class_HW.masked_fill(~(best_HW > self.score(best_HW)), 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundBand:
    """Thresholds on the strongest class score of a pixel.

    Up to ``low`` it is background, above ``high`` foreground; between them the pixel is too doubtful to teach
    anything.
    """

    low: float = 0.25
    high: float = 0.55

    def score(self, best_HW: Tensor) -> Tensor:
        """Background score: the middle of the band everywhere."""
        return torch.full_like(best_HW, (self.low + self.high) / 2)

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """The class index, IGNORE_INDEX or 0: (H, W) uint8."""
        label_HW = class_HW.masked_fill(~(best_HW > self.high), IGNORE_INDEX)
        return label_HW.masked_fill(~(best_HW > self.low), 0)


class Background(Protocol):
    """A rule that tells the background from the classes."""

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """(H, W) uint8 from the strongest score of each pixel and the class index it stands for."""
        ...


@torch.no_grad()
def complete_labels(
    scores_KHW: Tensor,
    present_K: Tensor,
    *,
    background: Background,
    saliency_HW: Tensor | None = None,
    saliency_threshold: float = 0.5,
    mining_quantile: float = 0.9,
    opening: int = 10,
) -> Tensor:
    """Give each pixel a present class, the background or IGNORE_INDEX.

    Args:
        scores_KHW: class scores in [0, 1], refined, each divided by its maximum.
        present_K: bool, the image-level labels, on the host.
        background: what a pixel must beat to belong to a class.
        saliency_HW: how much each pixel stands out, in [0, 1]; None where no such map is wanted. With it the
            pixels that the rule does not give to a class become IGNORE_INDEX, those that do not stand out
            background, and strong activations among these are mined back.
        saliency_threshold: above it a pixel is salient.
        mining_quantile: quantile of the positive scores of a class above which they are mined; saliency only.
        opening: side, in pixels, of the square that a foreground region must hold; 0 or 1 keeps everything.

    Returns:
        (H, W) uint8, on the device of the scores.
    """
    index_R = present_K.nonzero().flatten()
    scores_RHW = scores_KHW[index_R.to(scores_KHW.device, non_blocking=True)].float()
    best_HW, class_HW = strongest(scores_RHW, index_R)
    label_HW = background.label(best_HW, class_HW)
    if saliency_HW is not None:
        salient_HW = saliency_HW > saliency_threshold
        label_HW = mask_by_saliency(label_HW, salient_HW)
        label_HW = mine(label_HW, scores_RHW, index_R, ~salient_HW, mining_quantile)
    return remove_speckles(label_HW, opening)


def strongest(scores_RHW: Tensor, index_R: Tensor) -> tuple[Tensor, Tensor]:
    """Strongest score of each pixel and the uint8 class index it stands for; 0 and 0 without any class."""
    if len(index_R) == 0:
        best_HW = scores_RHW.new_zeros(scores_RHW.shape[1:])
        return best_HW, best_HW.to(torch.uint8)
    best_HW, rank_HW = scores_RHW.max(dim=0)
    class_R = (index_R + 1).to(torch.uint8).to(rank_HW.device, non_blocking=True)
    return best_HW, class_R[rank_HW]


def mask_by_saliency(label_HW: Tensor, salient_HW: Tensor) -> Tensor:
    """Salient pixels without a class become IGNORE_INDEX, the others background."""
    return label_HW.masked_fill(label_HW == 0, IGNORE_INDEX).masked_fill(~salient_HW, 0)


def mine(label_HW: Tensor, scores_RHW: Tensor, index_R: Tensor, where_HW: Tensor, quantile: float) -> Tensor:
    """Give each present class its strongest pixels; those that two classes claim become IGNORE_INDEX.

    Args:
        label_HW: uint8, the labels so far.
        scores_RHW: scores of the present classes, in [0, 1].
        index_R: which of the K classes they are, on the host.
        where_HW: bool, the pixels that may be mined.
        quantile: of the positive scores of a class, over the whole image.

    Returns:
        (H, W) uint8.
    """
    label_HW = label_HW.clone()
    claims_HW = torch.zeros_like(label_HW)
    for k, scores_HW in zip(index_R.tolist(), scores_RHW, strict=True):
        claimed_HW = (scores_HW > high_activation(scores_HW, quantile)) & where_HW
        label_HW.masked_fill_(claimed_HW, k + 1)
        claims_HW += claimed_HW
    return label_HW.masked_fill_(claims_HW > 1, IGNORE_INDEX)


def high_activation(scores_HW: Tensor, quantile: float) -> Tensor:
    """The score to exceed to lie above a quantile of the positive scores, a scalar; 0 without any.

    It is the last score at or below the quantile: none lies between the two, so the same are above both. As many are
    ranked as there would be if all scores were positive, so that nothing waits to hear how many are.
    """
    positive_HW = scores_HW > 0
    count = positive_HW.sum()
    above = count - (quantile * (count - 1).double()).floor().long()
    most = scores_HW.numel() - math.floor(quantile * (scores_HW.numel() - 1))
    ranked = scores_HW.masked_fill(~positive_HW, 0).flatten().topk(most).values
    return ranked.take(above.clamp(1, most) - 1)


def remove_speckles(label_HW: Tensor, size: int) -> Tensor:
    """What an opening with a square takes from the foreground becomes background; IGNORE_INDEX stays."""
    if size <= 1:
        return label_HW
    foreground_HW = (label_HW != 0) & (label_HW != IGNORE_INDEX)
    return label_HW.masked_fill(foreground_HW & ~opened(foreground_HW, size), 0)


def opened(mask_HW: Tensor, size: int) -> Tensor:
    """Morphological opening of a bool mask with a ``size`` x ``size`` square.

    Erosion, then dilation by the mirrored square: nothing moves and nothing is added. OpenCV's MORPH_OPEN
    does not mirror, which moves every region by a pixel where the size is even; otherwise the two agree: the
    anchor is at ``size // 2``, and pixels beyond the border take no part.
    """
    before = size // 2
    eroded_HW = ~dilated(~mask_HW, before, size - 1 - before)
    return dilated(eroded_HW, size - 1 - before, before)


def dilated(mask_HW: Tensor, before: int, after: int) -> Tensor:
    """Whether a bool mask holds a pixel within ``before`` up or left to ``after`` down or right."""
    size = before + after + 1
    padded = F.pad(mask_HW, (before, after, before, after))
    return window_any(window_any(padded, size, dim=0), size, dim=1)


def window_any(mask: Tensor, size: int, *, dim: int) -> Tensor:
    """Logical or over ``size`` successive entries along an axis; windows double until wide enough."""
    width = 1
    while width < size:
        step = min(width, size - width)
        length = mask.shape[dim] - step
        mask = mask.narrow(dim, 0, length) | mask.narrow(dim, step, length)
        width += step
    return mask
