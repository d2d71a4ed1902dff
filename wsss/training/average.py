"""The moving average of a network's weights: what a run saves for use, and the teacher of end-to-end training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

SLOWEST_START = 10.0
"""After n steps the average keeps at most (1 + n) / (10 + n) of itself, so that it forgets the fresh weights."""


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network, in ``eval`` mode; it starts as the network is.

    Args:
        network: what to follow.
        decay: share that the average keeps of itself in a step, in (0, 1), once enough steps are made.
    """

    def follow(average: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        torch._foreach_lerp_(list(average), list(current), 1 - decay_after(int(steps), decay))

    return AveragedModel(network, multi_avg_fn=follow).eval()


def decay_after(steps: int, decay: float) -> float:
    """Share that the average keeps of itself after so many steps."""
    return min(decay, (1 + steps) / (SLOWEST_START + steps))
