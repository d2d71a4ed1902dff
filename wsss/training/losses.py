"""Losses of the classifier (tags) and of the decoder (pseudo labels, saliency).

Every loss is computed in float32, under autocast too, and does not synchronise the device. A batch may be computed in
parts, by several processes or one after the other: the mean of the losses of its parts is the loss of the batch. Where
a loss is a mean over pixels or known tags, of which parts have unequal numbers, this takes the mean of these numbers.

Shape suffixes: B images, K foreground classes, C = K + 1 outputs (background first), H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX

LEAST = 1e-6
"""Bounds the mean number of pixels or tags in a part; it is 0, or at least 1 divided by the number of parts."""


def classification_loss(
    logits_BK: Tensor, present_BK: Tensor, known_BK: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """Multi-label soft margin of the class logits against the tags: one sigmoid a class, averaged.

    Args:
        logits_BK: class logits, any real number.
        present_BK: bool, the image-level labels, on the host or with the logits.
        known_BK: bool, which of them are known; the others take no part. None: all.
        count: scalar, known tags in a part of the batch on average; None: these are all.

    Returns:
        Scalar, at least 0.
    """
    logits_BK = logits_BK.float()
    wanted_BK = present_BK.to(logits_BK.device, non_blocking=True).float()
    if known_BK is None:
        return F.multilabel_soft_margin_loss(logits_BK, wanted_BK)
    loss_BK = F.binary_cross_entropy_with_logits(logits_BK, wanted_BK, reduction="none")
    known_BK = known_BK.to(logits_BK.device, non_blocking=True)
    return _masked_mean(loss_BK, known_BK, known_BK.sum() if count is None else count)


def count_sides(label_BHW: Tensor) -> Tensor:
    """(2,) int64: pixels of the background and of the foreground in label maps."""
    background_BHW, foreground_BHW = _sides(label_BHW)
    return torch.stack([background_BHW.sum(), foreground_BHW.sum()])


def balanced_cross_entropy(scores_BCHW: Tensor, label_BHW: Tensor, count_2: Tensor | None = None) -> Tensor:
    """Cross-entropy over the background pixels plus cross-entropy over the foreground pixels.

    Each of the two is the mean over its own pixels in the whole batch, so that both have the same weight although
    the background covers most of an image. A side without a pixel adds exactly 0.

    Args:
        scores_BCHW: decoder outputs before the softmax.
        label_BHW: class indices, uint8; pixels of IGNORE_INDEX are left out.
        count_2: ``count_sides`` of a part of the batch on average; None: these are all.

    Returns:
        Scalar, at least 0; 0 with zero gradient where no pixel is valid.
    """
    sides = _sides(label_BHW)
    if count_2 is None:
        count_2 = count_sides(label_BHW)
    index_BHW = label_BHW.long().masked_fill(label_BHW == IGNORE_INDEX, 0)
    loss_BHW = F.cross_entropy(scores_BCHW.float(), index_BHW, reduction="none")
    background, foreground = (_masked_mean(loss_BHW, *side) for side in zip(sides, count_2, strict=True))
    return background + foreground


def _sides(label_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) bool each: the pixels of the background and of the foreground."""
    background_BHW = label_BHW == 0
    return background_BHW, ~background_BHW & (label_BHW != IGNORE_INDEX)


def _masked_mean(values_BHW: Tensor, keep_BHW: Tensor, count: Tensor) -> Tensor:
    """Sum over the kept pixels divided by a number of pixels, which stays on the device; 0 where none is kept."""
    return values_BHW.masked_fill(~keep_BHW, 0.0).sum() / count.clamp(min=LEAST)


def saliency_loss(scores_BCHW: Tensor, saliency_BHW: Tensor) -> Tensor:
    """Binary cross-entropy of the foreground probability against a saliency map.

    The foreground probability is 1 - softmax(scores) of the background. Its logit is the log-sum-exp of the
    foreground scores minus the background score, so no probability is ever rounded to 0 or 1.

    Args:
        scores_BCHW: decoder outputs before the softmax, C >= 2.
        saliency_BHW: saliency in [0, 1].

    Returns:
        Scalar, at least 0: the mean over all pixels.
    """
    scores_BCHW = scores_BCHW.float()
    foreground_BHW = scores_BCHW[:, 1:].logsumexp(dim=1) - scores_BCHW[:, 0]
    return F.binary_cross_entropy_with_logits(foreground_BHW, saliency_BHW.to(foreground_BHW))
