"""Bilinear upsampling from a grid to an image, a band of rows at a time.

A float tensor of all classes at the size of a photo does not fit in memory: 81 classes of 48 megapixels are 15 GiB. The
functions here make one band of rows, use it, and drop it. All sample as ``F.interpolate(mode="bilinear",
align_corners=False, antialias=False)`` does, up to rounding. That also holds where the image is smaller than the grid:
each pixel then reads its four nearest grid points, and grid points between pixels are skipped.

Shape suffixes: B images, C channels, S chosen channels, R pairs of an image and a channel, h x w grid, H x W pixels, Y
rows of a band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BAND_VALUES = 2**23
"""Most float32 values of a band: 32 MiB."""

MARGIN = 1e-4
"""Slack of the bound in `labels_from_grid`: larger than the rounding error of an interpolated log-probability."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the pixels of one axis lie between grid points.

    Attributes:
        before: index of the grid point before each pixel, on the host.
        after: index of the grid point after it; the last point repeats at the border.
        weight_before: float32, share of the point before; that of the point after is ``weight_after``.
        weight_after: the two sum to 1 up to rounding.
    """

    before: Tensor
    after: Tensor
    weight_before: Tensor
    weight_after: Tensor

    @classmethod
    def of(cls, points: int, pixels: int) -> Axis:
        """The weights of ``F.interpolate``, to the bit: read off combs whose teeth are three points apart."""
        comb_13L = (torch.arange(points) % 3 == torch.arange(3)[:, None]).float()[None]
        weights_3M = F.interpolate(comb_13L, size=pixels, mode="linear", align_corners=False)[0]
        place_M = (torch.arange(pixels, dtype=torch.float64) + 0.5) * (points / pixels) - 0.5
        nearest_M = place_M.clamp(0, points - 1).round().long()
        every_M = torch.arange(pixels)
        before_M = nearest_M - ((nearest_M > 0) & (weights_3M[(nearest_M - 1) % 3, every_M] > 0)).long()
        after_M = (before_M + 1).clamp(max=points - 1)
        weight_before_M = weights_3M[before_M % 3, every_M]
        weight_after_M = weights_3M[(before_M + 1) % 3, every_M].masked_fill(after_M == before_M, 0)
        return cls(before_M, after_M, weight_before_M, weight_after_M)


def upsampled_bands(
    grid_Chw: Tensor, size: tuple[int, int], *, max_values: int = BAND_VALUES
) -> Iterator[tuple[slice, Tensor]]:
    """Bands of rows of ``F.interpolate(grid_Chw[None], size, mode="bilinear", align_corners=False)[0]``.

    Equal to it within 1e-6 relative to the largest value; where the size is that of the grid, bands are views of it.

    Args:
        grid_Chw: floating point, on any device.
        size: (H, W) of the image.
        max_values: most values of a band; one row is the smallest band.

    Yields:
        the rows, as a slice, and (C, Y, W) float32, from top to bottom.
    """
    channels, points, width = grid_Chw.shape
    height = max(1, max_values // (max(1, channels) * max(width, size[1])))
    axis = Axis.of(points, size[0])
    for top in range(0, size[0], height):
        rows = slice(top, min(top + height, size[0]))
        yield rows, band_of(grid_Chw, axis, rows, size)


def band_of(grid_Chw: Tensor, axis: Axis, rows: slice, size: tuple[int, int]) -> Tensor:
    """(C, Y, W) float32: rows by explicit weights, then columns by ``F.interpolate``."""
    if tuple(grid_Chw.shape[1:]) == size:
        return grid_Chw[:, rows].float()
    some_CYw = _mixed_rows(grid_Chw, axis, rows)
    if some_CYw.shape[2] == size[1]:
        return some_CYw
    return F.interpolate(some_CYw, size=size[1], mode="linear", align_corners=False)


def _mixed_rows(grid_Chw: Tensor, axis: Axis, rows: slice) -> Tensor:
    """(C, Y, w) float32: the weighted mean of the grid's rows above and below each pixel row."""
    if grid_Chw.shape[1] == len(axis.before):
        return grid_Chw[:, rows].float()
    first, end = int(axis.before[rows.start]), int(axis.after[rows.stop - 1]) + 1
    near_Cyw = grid_Chw[:, first:end].float()
    device = grid_Chw.device
    above_Y, below_Y = ((part[rows] - first).to(device, non_blocking=True) for part in (axis.before, axis.after))
    above_Y1, below_Y1 = (
        part[rows, None].to(device, non_blocking=True) for part in (axis.weight_before, axis.weight_after)
    )
    mixed_CYw = near_Cyw.index_select(1, above_Y).mul_(above_Y1)
    return mixed_CYw.addcmul_(near_Cyw.index_select(1, below_Y), below_Y1)


@torch.no_grad()
def labels_from_grid(log_probabilities_Chw: Tensor, size: tuple[int, int], *, max_values: int = BAND_VALUES) -> Tensor:
    """The channel with the largest upsampled value at each pixel, the lowest index where several are equal.

    A pixel lies in a cell of four grid points, and its values lie between those of the four. So a channel cannot win in
    a cell where its largest corner is below some other channel's smallest corner. Each band leaves out the channels
    that can win in none of its cells, which changes no label. On a GPU the host waits once, for the table of them.

    Args:
        log_probabilities_Chw: finite, C up to 256; logits, which have the same order at each pixel, may be given too.
        size: (H, W) of the label map.
        max_values: most values of a band.

    Returns:
        (H, W) uint8, on the device of the grid.
    """
    channels, points, width = log_probabilities_Chw.shape
    label_HW = torch.empty(size, dtype=torch.uint8, device=log_probabilities_Chw.device)
    can_win_Cy = _can_win(log_probabilities_Chw).cpu()
    axis = Axis.of(points, size[0])
    height = max(1, max_values // (channels * max(width, size[1])))
    for top in range(0, size[0], height):
        rows = slice(top, min(top + height, size[0]))
        last = can_win_Cy.shape[1] - 1
        cells = slice(min(int(axis.before[top]), last), min(int(axis.before[rows.stop - 1]), last) + 1)
        some = can_win_Cy[:, cells].any(dim=1).nonzero().flatten().tolist()
        label_HW[rows] = _strongest(log_probabilities_Chw, some, axis, rows, size)
    return label_HW


def _can_win(grid_Chw: Tensor) -> Tensor:
    """(C, cells from top to bottom) bool: whether a channel can be the largest in some cell of that row of cells."""
    largest_Chw, smallest_1hw = _over_corners(grid_Chw), -_over_corners(-grid_Chw)
    smallest_1hw = smallest_1hw.amax(dim=0, keepdim=True)
    return (largest_Chw >= smallest_1hw - MARGIN).any(dim=2)


def _over_corners(grid_Chw: Tensor) -> Tensor:
    """The largest of the four corners of each cell; an axis of one point is one cell."""
    for axis in (1, 2):
        count = grid_Chw.shape[axis]
        if count > 1:
            grid_Chw = torch.maximum(grid_Chw.narrow(axis, 0, count - 1), grid_Chw.narrow(axis, 1, count - 1))
    return grid_Chw


def _strongest(grid_Chw: Tensor, some: Sequence[int], axis: Axis, rows: slice, size: tuple[int, int]) -> Tensor | int:
    """(Y, W) uint8: the strongest of some channels at each pixel of a band; its index where there is but one."""
    if len(some) == 1:
        return some[0]
    best_YW, label_YW = None, None
    for channel in some:
        values_YW = band_of(grid_Chw[channel : channel + 1], axis, rows, size)[0]
        if best_YW is None or label_YW is None:
            best_YW = values_YW
            label_YW = torch.full_like(values_YW, channel, dtype=torch.uint8)
        else:
            label_YW.masked_fill_(values_YW > best_YW, channel)
            best_YW = torch.maximum(best_YW, values_YW)
    assert label_YW is not None
    return label_YW


@torch.no_grad()
def probabilities_at(
    log_probabilities_Chw: Tensor,
    size: tuple[int, int],
    channels: Sequence[int] | None = None,
    *,
    max_values: int = BAND_VALUES,
) -> Tensor:
    """Probabilities at image size: the softmax, over all C channels, of the upsampled log-probabilities.

    Args:
        log_probabilities_Chw: finite; logits may be given too, the softmax is the same.
        size: (H, W) of the image.
        channels: those to keep, in this order; None keeps all.
        max_values: most values of a band.

    Returns:
        (S, H, W) float32; S is C or the number of ``channels``. Over all C the probabilities of a pixel sum to 1.
    """
    kept = range(len(log_probabilities_Chw)) if channels is None else channels
    image_R = torch.zeros(len(kept), dtype=torch.long)
    channel_R = torch.tensor([*kept], dtype=torch.long)
    return pair_probabilities(log_probabilities_Chw[None], size, image_R, channel_R, max_values=max_values)


@torch.no_grad()
def pair_probabilities(
    log_probabilities_BChw: Tensor,
    size: tuple[int, int],
    image_R: Tensor,
    channel_R: Tensor,
    *,
    max_values: int = BAND_VALUES,
) -> Tensor:
    """`probabilities_at` of a batch, for some pairs of an image and a channel.

    Args:
        log_probabilities_BChw: finite; logits may be given too, the softmax is the same.
        size: (H, W) of the images.
        image_R: index of each pair's image, on the host.
        channel_R: index of its channel, on the host.
        max_values: most values of a band.

    Returns:
        (R, H, W) float32.
    """
    device = log_probabilities_BChw.device
    image_R, channel_R = (index_R.to(device, non_blocking=True) for index_R in (image_R, channel_R))
    kept_RHW = torch.empty(len(image_R), *size, device=device)
    for rows, band_QYW in upsampled_bands(log_probabilities_BChw.flatten(0, 1), size, max_values=max_values):
        band_BCYW = band_QYW.view(*log_probabilities_BChw.shape[:2], *band_QYW.shape[1:]).softmax(dim=1)
        kept_RHW[:, rows] = band_BCYW[image_R, channel_R]
    return kept_RHW
