"""Maps of overlapping windows blended into those of the whole picture, a band of rows at a time.

Only the maps of windows that touch the band are held, on their own small grids: at most a few rows of windows.

Shape suffixes: C channels of the picture, S channels of a window, h x w grid of a window, W columns of the picture, Y
rows of a band.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsss.data.windows import Windows
from wsss.labels.bands import BAND_VALUES, Axis, band_of


@dataclass(frozen=True, slots=True)
class WindowMaps:
    """What is known of one window.

    Attributes:
        grid_Shw: log-probabilities, or scores.
        channels: the channels of the picture that they are; None: all, in order.
    """

    grid_Shw: Tensor
    channels: Sequence[int] | None = None


@torch.no_grad()
def blended_bands(
    down: Windows,
    across: Windows,
    rows_of_windows: Iterable[Sequence[WindowMaps]],
    channels: int,
    *,
    softmax: bool,
    max_values: int = BAND_VALUES,
) -> Iterator[tuple[slice, Tensor]]:
    """Bands of rows of the weighted mean of the windows' maps (`Windows.weights`), each upsampled to its window.

    Args:
        down: windows along the rows of the picture.
        across: windows along its columns.
        rows_of_windows: for each of ``down``, from top to bottom, the maps of its windows from left to right; asked for
            when a band needs them and dropped when none does any more. Their grids have one size.
        channels: C.
        softmax: whether grids are log-probabilities, whose softmax over the channels of the window is blended.
        max_values: most values of a band.

    Yields:
        the rows, and (C, Y, W) float32, from top to bottom.
    """
    size, coming = (down.side, across.side), iter(rows_of_windows)
    down_weights, across_weights = down.weights(), across.weights()
    held: dict[int, Sequence[WindowMaps]] = {}
    asked, axis = 0, None
    height = max(1, max_values // (max(1, channels) * across.length))
    for top in range(0, down.length, height):
        stop = min(top + height, down.length)
        while asked < len(down.starts) and down.starts[asked] < stop:
            held[asked], asked = next(coming), asked + 1
        held = {row: maps for row, maps in held.items() if down.starts[row] + down.side > top}
        first = next(iter(held.values()))[0].grid_Shw
        axis = axis or Axis.of(first.shape[1], down.side)
        band_CYW = first.new_zeros(channels, stop - top, across.length, dtype=torch.float32)
        for row, maps in held.items():
            start = down.starts[row]
            rows = slice(max(top - start, 0), min(stop - start, down.side))
            into = slice(start + rows.start - top, start + rows.stop - top)
            weight_Y1 = down_weights[row][rows, None].to(first.device)
            for left, weight_T, one in zip(across.starts, across_weights, maps, strict=True):
                part_SYT = band_of(one.grid_Shw, axis, rows, size)
                part_SYT = part_SYT.softmax(dim=0) if softmax else part_SYT.clone()
                part_SYT.mul_(weight_Y1).mul_(weight_T.to(first.device))
                columns = slice(left, left + across.side)
                if one.channels is None:
                    band_CYW[:, into, columns] += part_SYT
                else:
                    for channel, part_YT in zip(one.channels, part_SYT, strict=True):
                        band_CYW[channel, into, columns] += part_YT
        yield slice(top, stop), band_CYW
