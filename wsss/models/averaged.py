"""Label probabilities on one grid, averaged over scales and flips.

The grid is the finest that the decoder sees: 8 rows and columns a patch of the largest scale. Nothing here depends on
the size of the photo; ``wsss.labels.bands`` makes labels of that size from the grid, row by row.

Shape suffixes: B images, C = K + 1 label channels, h x w any grid, H x W pixels of a scaled image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.models.decoder import OUTPUT_SCALE
from wsss.models.network import Network
from wsss.models.onnx_network import OnnxNetwork

LEAST = torch.finfo(torch.float32).tiny
"""Smallest mean probability whose logarithm is taken."""


class LabelProbabilities:
    """The mean over passes of the decoder's label probabilities of a batch.

    Args:
        grid: (h, w) to average on, the finest that the decoder sees (`decoder_grid`).
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        self._grid = grid
        self._first: Tensor | None = None
        self._sum: Tensor | None = None
        self._passes = 0

    @torch.no_grad()
    def add(self, scores_BChw: Tensor, *, mirrored: bool = False) -> None:
        """Add one pass: the decoder's scores of the images, or of their mirror images, on any grid."""
        scores_BChw = scores_BChw.float()
        if mirrored:
            scores_BChw = scores_BChw.flip(3)
        if scores_BChw.shape[-2:] != self._grid:
            scores_BChw = F.interpolate(scores_BChw, size=self._grid, mode="bilinear", align_corners=False)
        self._passes += 1
        if self._passes == 1:
            self._first = scores_BChw
            return
        if self._sum is None:
            assert self._first is not None
            self._sum, self._first = self._first.softmax(dim=1), None
        self._sum += scores_BChw.softmax(dim=1)

    def log_mean(self) -> Tensor:
        """(B, C, h, w) float32: logarithm of the mean probability. Of one pass it is the log-softmax of its scores."""
        if self._first is not None:
            return self._first.log_softmax(dim=1)
        assert self._sum is not None, "no pass was added"
        return (self._sum / self._passes).clamp_min_(LEAST).log_()


@torch.inference_mode()
def log_label_probabilities(
    network: Network | OnnxNetwork, images_by_scale: Sequence[Tensor], *, flip: bool = False
) -> Tensor:
    """Segment images without their tags.

    Args:
        network: with a decoder, in ``eval`` mode.
        images_by_scale: for each scale (B, 3, H_s, W_s) in [0, 1], in whole patches.
        flip: also segment the mirrored images.

    Returns:
        (B, C, h, w) float32 log-probabilities on the finest grid; those of a place sum to 1 when exponentiated.
    """
    mean = LabelProbabilities(decoder_grid(network, images_by_scale))
    for images, mirrored in passes(images_by_scale, flip=flip):
        mean.add(network.scores_on_grid(images), mirrored=mirrored)
    return mean.log_mean()


def decoder_grid(network: Network | OnnxNetwork, images_by_scale: Sequence[Tensor]) -> tuple[int, int]:
    """(h, w) of the decoder's output for the scale with most pixels."""
    finest = max(images_by_scale, key=lambda images: images.shape[2] * images.shape[3])
    rows, columns = network.backbone.stride
    return -(-finest.shape[2] // rows) * OUTPUT_SCALE, -(-finest.shape[3] // columns) * OUTPUT_SCALE


def passes(images_by_scale: Sequence[Tensor], *, flip: bool) -> Iterator[tuple[Tensor, bool]]:
    """The images at each scale and, with ``flip``, mirrored; the second value says whether they are."""
    for images in images_by_scale:
        yield images, False
        if flip:
            yield images.flip(3), True
