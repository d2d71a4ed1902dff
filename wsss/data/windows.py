"""Overlapping windows of a large picture, and the weights with which what is said of them is blended.

Shape suffixes: T pixels of a window along one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP = 1 / 3
"""Share of a window's side that it shares with the next, at least; the weights fall from 1 to 0 over it."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of equal length along one axis of a picture; they cover it and none leads out.

    Attributes:
        length: of the axis, pixels.
        side: of a window, pixels, at most ``length``.
        starts: first pixel of each window, ascending; the first is 0, the last ``length - side``.
    """

    length: int
    side: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, length: int, side: int) -> Windows:
        """As few windows as overlap by ``OVERLAP``, spread evenly."""
        side = min(length, side)
        step = max(1, side - round(side * OVERLAP))
        gaps = -(-(length - side) // step)
        return cls(length, side, tuple(round(i * (length - side) / max(1, gaps)) for i in range(gaps + 1)))

    def weights(self) -> list[Tensor]:
        """(T,) float32 of each window, in (0, 1]; those of a pixel sum to 1 over the windows that hold it.

        Raised cosines that fall towards the borders which a window shares with others, divided by their sum.
        """
        ramp_T = torch.arange(self.side, dtype=torch.float64).add(0.5).div(max(1.0, self.side * OVERLAP)).clamp(max=1)
        ramp_T = (ramp_T * torch.pi / 2).sin() ** 2
        raw, total = [], torch.zeros(self.length, dtype=torch.float64)
        for start in self.starts:
            weight_T = torch.ones_like(ramp_T)
            if start > 0:
                weight_T = weight_T * ramp_T
            if start + self.side < self.length:
                weight_T = weight_T * ramp_T.flip(0)
            raw.append(weight_T)
            total[start : start + self.side] += weight_T
        return [
            (weight_T / total[start : start + self.side]).float()
            for start, weight_T in zip(self.starts, raw, strict=True)
        ]


def is_large(size: tuple[int, int], tile: int) -> bool:
    """Whether a picture (H, W) has a larger area than a square of side ``tile``, so that it is cut into windows."""
    return size[0] * size[1] > tile**2


def windows_of(size: tuple[int, int], tile: int) -> tuple[Windows, Windows]:
    """The windows of a picture down its rows and across its columns."""
    return Windows.of(size[0], tile), Windows.of(size[1], tile)


def side_in_window(side: int, window: tuple[int, int], tile: int) -> int:
    """The side, as `wsss.data.scaled.scaled_size` takes it, at which a window is read: that of the whole window of
    ``tile`` squared pixels for a square one, so that a picture which is narrower than ``tile`` is not enlarged.
    """
    return max(1, round(side * math.sqrt(window[0] * window[1]) / tile))
