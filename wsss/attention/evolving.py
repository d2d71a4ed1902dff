"""Attention that evolves from block to block (Evolving Attention, Wang et al., arXiv 2212.08330).

The logits of a block are mixed with the refined ones of the block before, and then refined by a convolution across the
heads.

Shape suffixes: B images, A heads, N tokens (P prefix tokens first), M patches, L edited blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.attention.edit import Call, LearnedEdit, Pass
from wsss.sections import EditSection


class Evolving(LearnedEdit):
    """With Z the logits between patches and E those that the block before ended with:

        I = Z + a (E - Z),    E <- I + b (relu(conv(I)) - I),    and the softmax is taken of E.

    The 3 x 3 convolution runs over the M x M matrix of queries and keys as over an image. Patches are numbered row by
    row, so at the end of a row of the grid the next patch in that matrix lies at the start of the next row. Logits of
    prefix tokens stay as they are. The control mixes alone: it has neither b nor a convolution.

    Attributes:
        mix_L: a of each block but the first, which has none before it. It starts at 0.
        refine_L: b of each block; it starts at 0.
        convolutions: of each block, A -> A channels.
    """

    has_control = True

    def __init__(self, layers: range, num_heads: int, section: EditSection) -> None:
        super().__init__(layers, num_heads, section)
        if len(layers) > 1:
            self.mix_L = nn.Parameter(torch.zeros(len(layers) - 1))
        if not self.control:
            self.refine_L = nn.Parameter(torch.zeros(len(layers)))
            self.convolutions = nn.ModuleList(nn.Conv2d(num_heads, num_heads, 3, padding=1) for _ in layers)

    def logits(self, logits_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        """Replace the logits between patches."""
        prefix, place = of.num_prefix_tokens, call.layer - self.layers.start
        evolved_BAMM = logits_BANN[:, :, prefix:, prefix:]
        before_BAMM = of.memory.pop(f"evolving {call.layer - 1}", None)
        if before_BAMM is not None:
            evolved_BAMM = torch.lerp(evolved_BAMM, before_BAMM, self.mix_L[place - 1])
        if not self.control:
            refined_BAMM = F.relu(self.convolutions[place](evolved_BAMM))
            evolved_BAMM = torch.lerp(evolved_BAMM, refined_BAMM, self.refine_L[place])
        if call.layer + 1 in self.layers:
            of.memory[f"evolving {call.layer}"] = evolved_BAMM
        return torch.cat(
            [
                logits_BANN[:, :, :prefix],
                torch.cat([logits_BANN[:, :, prefix:, :prefix], evolved_BAMM], dim=3),
            ],
            dim=2,
        )
