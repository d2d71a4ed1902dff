"""A gate for each channel of a block's MLP: does its strength lie where that of the other channels lies?

The channel attention of FAN (Zhou et al., "Understanding the robustness in vision transformers", arXiv 2204.12451), but
the sum over the M patches is multiplied by M: as published it is about 1 / M, so that all gates are nearly constant.

Shape suffixes: B images, N tokens (P prefix tokens first), M patches, C channels, L edited blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsss.attention.edit import LearnedEdit, Pass
from wsss.sections import EditSection


class ChannelGate(LearnedEdit):
    """The output of the MLP times ``1 + strength * gate``, a gate for each channel; its control has one for all.

    Attributes:
        strength_L: of each block; it starts at 0.
    """

    has_control = True

    def __init__(self, layers: range, num_heads: int, section: EditSection) -> None:
        super().__init__(layers, num_heads, section)
        self.strength_L = nn.Parameter(torch.zeros(len(layers)))

    def channels(self, output_BNC: Tensor, layer: int, of: Pass) -> Tensor:
        """Multiply. A block that runs again on its class token alone has the gates of the whole block."""
        strength = self.strength_L[layer - self.layers.start]
        if self.control:
            return (output_BNC * (1 + strength)).to(output_BNC.dtype)
        key = f"channel-gate {layer}"
        if output_BNC.shape[1] == of.num_tokens:
            of.memory[key] = channel_gates(output_BNC[:, of.num_prefix_tokens :].float())
        return (output_BNC * (1 + strength * of.memory[key][:, None])).to(output_BNC.dtype)


def channel_gates(patches_BMC: Tensor) -> Tensor:
    """The gate of each channel, from the output of the MLP at the patches.

    A channel's distribution over the patches is the softmax of its values there. Its agreement with the mean of the
    distributions of all channels is 1 where all are even, more where both prefer the same patches, less where they
    prefer others.

    Returns:
        (B, C) in (-1, 1): ``2 sigmoid(agreement - 1) - 1``; at least -0.46, since no agreement is below 0.
    """
    share_BMC = patches_BMC.softmax(dim=1)
    mean_BM1 = share_BMC.mean(dim=2, keepdim=True)
    agreement_BC = patches_BMC.shape[1] * (share_BMC * mean_BM1).sum(dim=1)
    return 2 * (agreement_BC - 1).sigmoid() - 1
