"""Losses of the classifier (tags) and of the decoder (pseudo labels, saliency).

Every loss is computed in float32, under autocast too, and does not synchronise the device.

Shape suffixes: B images, K foreground classes, C = K + 1 outputs (background first), H rows, W columns.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX


def classification_loss(logits_BK: Tensor, present_BK: Tensor, known_BK: Tensor | None = None) -> Tensor:
    """Multi-label soft margin of the class logits against the tags: one sigmoid a class, averaged.

    Args:
        logits_BK: class logits, any real number.
        present_BK: bool, the image-level labels, on the host or with the logits.
        known_BK: bool, which of them are known; the others take no part. None: all.

    Returns:
        Scalar, at least 0.
    """
    logits_BK = logits_BK.float()
    wanted_BK = present_BK.to(logits_BK.device, non_blocking=True).float()
    if known_BK is None:
        return F.multilabel_soft_margin_loss(logits_BK, wanted_BK)
    loss_BK = F.binary_cross_entropy_with_logits(logits_BK, wanted_BK, reduction="none")
    return _masked_mean(loss_BK, known_BK.to(logits_BK.device, non_blocking=True))


def balanced_cross_entropy(scores_BCHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Cross-entropy over the background pixels plus cross-entropy over the foreground pixels.

    Each of the two is the mean over its own pixels in the whole batch, so that both have the same weight although
    the background covers most of an image. A side without a pixel adds exactly 0.

    Args:
        scores_BCHW: decoder outputs before the softmax.
        label_BHW: class indices, uint8; pixels of IGNORE_INDEX are left out.

    Returns:
        Scalar, at least 0; 0 with zero gradient where no pixel is valid.
    """
    background_BHW = label_BHW == 0
    foreground_BHW = ~background_BHW & (label_BHW != IGNORE_INDEX)
    index_BHW = label_BHW.long().masked_fill(label_BHW == IGNORE_INDEX, 0)
    loss_BHW = F.cross_entropy(scores_BCHW.float(), index_BHW, reduction="none")
    return _masked_mean(loss_BHW, background_BHW) + _masked_mean(loss_BHW, foreground_BHW)


def _masked_mean(values_BHW: Tensor, keep_BHW: Tensor) -> Tensor:
    """Mean over the kept pixels, 0 where none is kept; the count stays on the device."""
    return values_BHW.masked_fill(~keep_BHW, 0.0).sum() / keep_BHW.sum().clamp(min=1)


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
