"""Parts of images that are hidden, mixed up or replaced. Nothing outside of these parts changes.

Shape suffixes: B images, C channels, H x W pixels, h x w patch grid, M = h * w patches, n cells a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wsss.robustness.corruptions import random_of

ORDERS = ("random", "salient", "background")
"""Which patches are hidden first: drawn, those with the largest values of the image's own map, or the smallest."""


def hidden_patches(saliency_Bhw: Tensor, share: float, order: str, names: Sequence[str]) -> Tensor:
    """The share of the patches of each image that come first in an order, (B, h, w) bool.

    Args:
        saliency_Bhw: the image's own map; decides the order unless that is "random". Equal patches are in the order of
            the grid.
        share: in [0, 1]; rounded to whole patches.
        order: one of ``ORDERS``.
        names: of the images: the random order follows from them.
    """
    batch, height, width = saliency_Bhw.shape
    if order == "random":
        draws = [random_of(name, "occlusion").permutation(height * width) for name in names]
        rank_BM = torch.from_numpy(np.stack(draws)).argsort(dim=1)
    else:
        values_BM = saliency_Bhw.flatten(1).cpu()
        rank_BM = values_BM.argsort(dim=1, descending=order == "salient", stable=True).argsort(dim=1)
    return (rank_BM < round(share * height * width)).reshape(batch, height, width)


def fill(images_B3HW: Tensor, hidden_Bhw: Tensor) -> Tensor:
    """Images whose hidden patches have the mean colour of their image.

    Args:
        images_B3HW: in [0, 1], in whole patches.
        hidden_Bhw: bool.
    """
    return torch.where(pixels(hidden_Bhw, images_B3HW), images_B3HW.mean(dim=(2, 3), keepdim=True), images_B3HW)


def pixels(patches_Bhw: Tensor, images_B3HW: Tensor) -> Tensor:
    """A choice of patches as one of pixels: (B, 1, H, W) bool on the device of the images."""
    size = (images_B3HW.shape[2], images_B3HW.shape[3])
    return F.interpolate(patches_Bhw[:, None].float(), size=size, mode="nearest").bool().to(images_B3HW.device)


class Shuffle:
    """Mixes the cells of images up, by their names, and puts maps of them back in order.

    Rows and columns at the bottom and right that do not fill a cell stay where they are.

    Args:
        cells: (rows, columns) of cells.
        names: of the images.
    """

    def __init__(self, cells: tuple[int, int], names: Sequence[str]) -> None:
        self.cells = cells
        count = cells[0] * cells[1]
        draws = [random_of(name, "shuffle", cells).permutation(count) for name in names]
        self._from = torch.from_numpy(np.stack(draws))

    def mix(self, images_BCHW: Tensor) -> Tensor:
        """Images whose i-th cell is cell ``from[i]`` of the original."""
        return self._moved(images_BCHW, self._from)

    def restore(self, maps_BChw: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps of mixed images in the order of the originals.

        Args:
            maps_BChw: on any grid, any number of channels; all -inf or finite in a cell.
            size: (H, W) of the images: maps are enlarged to it by repetition, moved, and averaged on their grid.
        """
        grid = (maps_BChw.shape[2], maps_BChw.shape[3])
        large_BCHW = F.interpolate(maps_BChw, size=size, mode="nearest")
        return F.adaptive_avg_pool2d(self._moved(large_BCHW, self._from.argsort(dim=1)), grid)

    def _moved(self, images_BCHW: Tensor, from_BN: Tensor) -> Tensor:
        rows, columns = self.cells
        high, wide = images_BCHW.shape[2] // rows, images_BCHW.shape[3] // columns
        inner = images_BCHW[:, :, : rows * high, : columns * wide]
        cells_BNChw = inner.reshape(*inner.shape[:2], rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        images = torch.arange(len(from_BN))[:, None]
        moved = cells_BNChw[images.to(cells_BNChw.device), from_BN.to(cells_BNChw.device)]
        moved_BCHW = images_BCHW.clone()
        moved_BCHW[:, :, : rows * high, : columns * wide] = (
            moved.reshape(-1, rows, columns, *moved.shape[2:]).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        )
        return moved_BCHW


def cell_places(grid: tuple[int, int], side: int, count: int, name: str) -> NDArray[np.int64]:
    """Top and left patch of cells of ``side`` x ``side`` patches, drawn by the name of an image: (count, 2).

    Places repeat where there are fewer than ``count``; a grid that is smaller than the cell has one place, its corner.
    """
    rows, columns = max(1, grid[0] - side + 1), max(1, grid[1] - side + 1)
    order = random_of(name, "places").permutation(rows * columns)
    chosen = np.resize(order, count)
    return np.stack([chosen // columns, chosen % columns], axis=1)


def cells_at(places_B2: NDArray[np.int64], side: int, grid: tuple[int, int]) -> Tensor:
    """The cell of each image as a choice of patches, (B, h, w) bool."""
    cells_Bhw = torch.zeros(len(places_B2), *grid, dtype=torch.bool)
    for cell_hw, (top, left) in zip(cells_Bhw, places_B2.tolist(), strict=True):
        cell_hw[top : top + side, left : left + side] = True
    return cells_Bhw
