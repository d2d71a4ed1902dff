"""The moving average of a network's weights: what a run saves for use, and the teacher of end-to-end training."""

from __future__ import annotations

from copy import deepcopy

import torch

from wsss.models.network import Network

SLOWEST_START = 10.0
"""After n steps the average keeps at most (1 + n) / (10 + n) of itself, so that it forgets the fresh weights."""


class MovingAverage:
    """An exponential moving average of a network.

    Torch's own takes the number of steps to the device, and whoever reads it there waits.

    Args:
        network: what to follow.
        decay: share that the average keeps of itself in a step, in (0, 1), once enough steps are made.

    Attributes:
        network: the average, in ``eval`` mode; it starts as the network is.
        steps: how many it has followed.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval()
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def follow(self, network: Network) -> None:
        """Take one step's weights in; those of the first replace the average, and buffers always are the last."""
        weight = 1 - decay_after(self.steps, self.decay) if self.steps else 1.0
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
        self.steps += 1


def decay_after(steps: int, decay: float) -> float:
    """Share that the average keeps of itself after so many steps."""
    return min(decay, (1 + steps) / (SLOWEST_START + steps))
