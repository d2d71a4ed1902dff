"""Blended windows: they are the map of the whole picture where each window knows its part of that."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from wsss.data.windows import Windows
from wsss.labels.blending import WindowMaps, blended_bands


def rows_of(maps_CHW: Tensor, down: Windows, across: Windows, asked: list[int]) -> Iterator[list[WindowMaps]]:
    for row, top in enumerate(down.starts):
        asked.append(row)
        strip = maps_CHW[:, top : top + down.side]
        yield [WindowMaps(strip[:, :, left : left + across.side]) for left in across.starts]


def test_windows_that_know_their_part_give_the_whole() -> None:
    torch.manual_seed(0)
    maps_CHW = torch.randn(3, 70, 95)
    down, across = Windows.of(70, 32), Windows.of(95, 32)
    for softmax, expected in ((True, maps_CHW.softmax(0)), (False, maps_CHW)):
        bands = list(
            blended_bands(down, across, rows_of(maps_CHW, down, across, []), 3, softmax=softmax, max_values=2000)
        )
        assert [rows.start for rows, _ in bands] == [rows.stop for rows, _ in [(slice(0, 0), None), *bands[:-1]]]
        torch.testing.assert_close(torch.cat([band for _, band in bands], dim=1), expected)


def test_rows_of_windows_are_read_when_a_band_needs_them() -> None:
    asked: list[int] = []
    down, across = Windows.of(200, 32), Windows.of(40, 32)
    for rows, _ in blended_bands(
        down, across, rows_of(torch.zeros(1, 200, 40), down, across, asked), 1, softmax=False, max_values=40
    ):
        assert asked == [row for row, start in enumerate(down.starts) if start <= rows.start]


def test_a_window_may_know_some_channels_only() -> None:
    down, across = Windows.of(4, 4), Windows.of(4, 4)
    known = WindowMaps(torch.zeros(2, 4, 4), channels=[0, 3])
    ((_, band_CYW),) = blended_bands(down, across, [[known]], 4, softmax=True)
    assert band_CYW[:, 0, 0].tolist() == [0.5, 0.0, 0.0, 0.5]
