"""Label probabilities averaged over scales and flips.

Shape suffixes: B images, C = K + 1 label channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.models.network import Network


class LabelProbabilities:
    """The mean over passes of what a decoder says of a batch.

    Args:
        sizes: (H, W) wanted for each of the B images.
        channels: for each image the label channels to keep; None keeps all.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], channels: Sequence[Sequence[int]] | None = None) -> None:
        self._sizes = sizes
        self._channels = channels
        self._sums: list[Tensor] = []
        self._passes = 0

    @torch.no_grad()
    def add(self, scores_BChw: Tensor, *, mirrored: bool = False) -> None:
        """Hear one pass: label scores of the images, or of their mirror images, at any size."""
        if mirrored:
            scores_BChw = scores_BChw.flip(3)
        for i, size in enumerate(self._sizes):
            scores = F.interpolate(scores_BChw[i : i + 1].float(), size=size, mode="bilinear", align_corners=False)
            probabilities = scores[0].softmax(dim=0)
            if self._channels is not None:
                probabilities = torch.stack([probabilities[channel] for channel in self._channels[i]])
            if self._passes == 0:
                self._sums.append(probabilities)
            else:
                self._sums[i] += probabilities
        self._passes += 1

    def mean(self) -> list[Tensor]:
        """For each image (C, H, W) float32; over all channels the probabilities of a pixel sum to 1."""
        return [total / self._passes for total in self._sums]


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
    mean = LabelProbabilities(sizes)
    for images, mirrored in passes(images_by_scale, flip=flip):
        features = network.features(images, taps=True)
        mean.add(network.decode(features, (images.shape[2], images.shape[3])), mirrored=mirrored)
    return mean.mean()


def passes(images_by_scale: Sequence[Tensor], *, flip: bool) -> Iterator[tuple[Tensor, bool]]:
    """The images at each scale and, with ``flip``, mirrored; whether they are."""
    for images in images_by_scale:
        yield images, False
        if flip:
            yield images.flip(3), True
