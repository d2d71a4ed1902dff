"""The moving average of a network's weights: what a run validates and saves, and the teacher of end-to-end training."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from wsss.models.network import Network

SLOWEST_START = 10.0
"""After n steps the average keeps at most the share (1 + n) / (SLOWEST_START + n) of itself, so that the random weights
of the first steps lose their influence soon."""


class MovingAverage(nn.Module):
    """An exponential moving average of a network.

    Torch's own (`torch.optim.swa_utils`) keeps the number of steps on the device, where reading it synchronises.

    Args:
        network: what is averaged.
        decay: share of itself that the average keeps in a step, in (0, 1), once enough steps are made.

    Attributes:
        network: the average, always in ``eval`` mode and without gradients. It starts as a copy of the network.
        steps: how many steps it has averaged.
    """

    network: Network

    def __init__(self, network: Network, decay: float) -> None:
        super().__init__()
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    def train(self, mode: bool = True) -> MovingAverage:
        """Stays in ``eval`` mode, whatever the module around it does."""
        super().train(False)
        return self

    @torch.no_grad()
    def follow(self, network: Network) -> None:
        """Average the weights after a step in. Those of the first step replace the average; buffers are copied."""
        weight = 1 - decay_after(self.steps, self.decay) if self.steps else 1.0
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
        self.steps += 1


def decay_after(steps: int, decay: float) -> float:
    """Share of itself that the average keeps in the step after ``steps`` steps."""
    return min(decay, (1 + steps) / (SLOWEST_START + steps))
