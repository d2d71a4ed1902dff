"""Label probabilities averaged over scales and flips.

Shape suffixes: B images, C = K + 1 label channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.models.network import Network


@torch.inference_mode()
def label_probabilities(
    network: Network,
    images_by_scale: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    flip: bool = False,
) -> list[Tensor]:
    """Segment images without knowing their tags.

    Args:
        network: with a decoder, in ``eval`` mode.
        images_by_scale: for each scale (B, 3, H_s, W_s) in [0, 1], in whole patches.
        sizes: (H, W) wanted for each of the B images.
        flip: also segment the mirrored images.

    Returns:
        for each image (C, H, W) float32; the probabilities of a pixel sum to 1.
    """
    sums: list[Tensor] = []
    passes = [(images, mirrored) for images in images_by_scale for mirrored in ((False, True) if flip else (False,))]
    for images, mirrored in passes:
        features = network.features(images.flip(3) if mirrored else images, taps=True)
        scores_BChw = network.decode(features, (images.shape[2], images.shape[3]))
        if mirrored:
            scores_BChw = scores_BChw.flip(3)
        for i, size in enumerate(sizes):
            scores = F.interpolate(scores_BChw[i : i + 1].float(), size=size, mode="bilinear", align_corners=False)
            probabilities = scores[0].softmax(dim=0)
            if len(sums) <= i:
                sums.append(probabilities)
            else:
                sums[i] += probabilities
    return [total / len(passes) for total in sums]
