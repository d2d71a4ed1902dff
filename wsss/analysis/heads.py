"""What attention heads do: how far they look, to which neighbour, and whether queries and heads differ.

All figures but the alignment and the gate are of the attention between patches, each row divided by its sum.
arXiv 2212.03862 studies distance, offsets and alignment, 2212.12552 (FCViT) the spread of queries, 2204.12451 (FAN) has
the gate.

Shape suffixes: B images, A heads, N tokens (P prefix tokens first), M patches on a grid h x w, O offsets along an axis,
C channels, H x W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wsss.data.masks import IGNORE_INDEX
from wsss.maps.tape import Attention

REACH = 4
"""Offsets of up to so many patches in each direction are kept; O = 2 * REACH + 1."""
LOCAL_SHARE = 0.25
"""A head is named after an offset to which its queries give at least this share of their attention, on average."""
OBJECT_MASS = 0.6
"""The patches with this share of a row's attention, the strongest first, are those that the row points at."""
LEAST = torch.finfo(torch.float32).tiny

DIRECTIONS = {
    (0, 0): "stays",
    (0, -1): "left",
    (0, 1): "right",
    (-1, 0): "up",
    (1, 0): "down",
    (-1, -1): "up-left",
    (-1, 1): "up-right",
    (1, -1): "down-left",
    (1, 1): "down-right",
}
"""Names of the offsets (rows, columns) from a query to the patch that it looks at."""


def patch_attention(attention: Attention, num_prefix_tokens: int) -> Tensor:
    """(B, A, M, M) float32: the attention between patches, each row divided by its sum."""
    weights_BAMM = attention.rows(slice(num_prefix_tokens, None))[..., num_prefix_tokens:]
    return weights_BAMM / weights_BAMM.sum(dim=-1, keepdim=True).clamp_min(LEAST)


def distance(weights_BAMM: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean distance from a query to what it looks at, (B, A); each side of the image has length 1."""
    height, width = grid
    row_M, column_M = torch.meshgrid(
        torch.arange(height) / max(1, height - 1), torch.arange(width) / max(1, width - 1), indexing="ij"
    )
    place_M2 = torch.stack([row_M.flatten(), column_M.flatten()], dim=1).to(weights_BAMM.device)
    return (weights_BAMM * torch.cdist(place_M2, place_M2)).sum(dim=-1).mean(dim=-1)


def offsets(weights_BAMM: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean attention to each offset over the queries for which it lies in the image.

    Args:
        weights_BAMM: see `patch_attention`.
        grid: (h, w).

    Returns:
        (B, A, O, O), rows before columns; the centre is the query itself. NaN where no query has such a patch.
    """
    square_BAhwhw = weights_BAMM.reshape(*weights_BAMM.shape[:2], *grid, *grid)
    mean_BAOO = weights_BAMM.new_full((*weights_BAMM.shape[:2], 2 * REACH + 1, 2 * REACH + 1), torch.nan)
    for down in range(-min(REACH, grid[0] - 1), min(REACH, grid[0] - 1) + 1):
        same_row_BAwwR = square_BAhwhw.diagonal(down, dim1=2, dim2=4)
        for right in range(-min(REACH, grid[1] - 1), min(REACH, grid[1] - 1) + 1):
            mean_BAOO[..., REACH + down, REACH + right] = same_row_BAwwR.diagonal(right, dim1=2, dim2=3).mean((2, 3))
    return mean_BAOO


def direction(mean_OO: Tensor) -> tuple[str, float]:
    """The name of the strongest of the nine nearest offsets and its share in [0, 1]; "-" below ``LOCAL_SHARE``."""
    found = {where: float(mean_OO[REACH + where[0], REACH + where[1]]) for where in DIRECTIONS}
    where = max(found, key=lambda one: found[one] if found[one] == found[one] else -1.0)
    return (DIRECTIONS[where] if found[where] >= LOCAL_SHARE else "-"), found[where]


def query_spread(weights_BAMM: Tensor) -> Tensor:
    """How much queries differ, (B, A) in [0, 1]: 0 where every query looks at the same patches."""
    return _differences(weights_BAMM, dim=2)


def head_spread(weights_BAMM: Tensor) -> Tensor:
    """How much each head differs from the mean of the heads of its block, (B, A) in [0, 1]."""
    return _differences(weights_BAMM, dim=1)


def _differences(weights_BAMM: Tensor, dim: int) -> Tensor:
    """Half the sum of absolute differences from the mean over an axis, averaged over the queries."""
    return 0.5 * (weights_BAMM - weights_BAMM.mean(dim=dim, keepdim=True)).abs().sum(dim=-1).mean(dim=-1)


def explaining_row(attention: Attention, num_prefix_tokens: int, *, class_token: bool) -> Tensor:
    """(B, A, M): the class token's attention to the patches, or without one the mean over the rows of the patches."""
    rows = slice(0, 1) if class_token else slice(num_prefix_tokens, None)
    return attention.rows(rows)[..., num_prefix_tokens:].mean(dim=2)


def alignment(row_BAM: Tensor, object_BM: Tensor, known_BM: Tensor) -> Tensor:
    """IoU of the patches that rows point at (``OBJECT_MASS``) with those of objects, (B, A) in [0, 1].

    Args:
        row_BAM: at least 0, of any sum.
        object_BM: bool, patches that are mostly object.
        known_BM: bool, patches that count.

    Returns:
        NaN for images without an object.
    """
    strongest_BAM, order_BAM = row_BAM.sort(dim=-1, descending=True)
    before_BAM = strongest_BAM.cumsum(dim=-1) - strongest_BAM
    pointed_BAM = torch.zeros_like(row_BAM, dtype=torch.bool)
    pointed_BAM.scatter_(2, order_BAM, before_BAM < OBJECT_MASS * row_BAM.sum(dim=-1, keepdim=True))
    pointed_BAM, there_BAM = pointed_BAM & known_BM[:, None], (object_BM & known_BM)[:, None]
    both_BA = (pointed_BAM & there_BAM).sum(dim=-1)
    either_BA = (pointed_BAM | there_BAM).sum(dim=-1)
    return torch.where(there_BAM.any(dim=-1), both_BA / either_BA, torch.nan)


def object_patches(truth_HW: NDArray[np.uint8], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Patches that are mostly object, and those that are mostly known, (M,) bool each.

    Args:
        truth_HW: class indices; 0 is the background, 255 unknown.
        grid: (h, w).
    """
    known_HW = truth_HW != IGNORE_INDEX
    object_M, known_M = (
        F.adaptive_avg_pool2d(torch.from_numpy(chosen_HW)[None].float(), grid).flatten()
        for chosen_HW in (known_HW & (truth_HW > 0), known_HW)
    )
    return object_M > 0.5 * known_M, known_M >= 0.5


def channel_gate(patches_BMC: Tensor) -> Tensor:
    """The gate that FAN gives each channel, (B, C) in (0, 1): sigma(sum_n s_cn mean_c s_cn).

    Args:
        patches_BMC: what a block's MLP reads; s is its softmax over the patches, of each channel.
    """
    share_BMC = patches_BMC.float().softmax(dim=1)
    return (share_BMC * share_BMC.mean(dim=2, keepdim=True)).sum(dim=1).sigmoid()
