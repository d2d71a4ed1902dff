"""Attention that is sparse: a few steps towards the weights that rebuild each query from few keys.

Visual Attention emerges from Recurrent Sparse reconstruction (VARS, Shi et al., arXiv 2204.10962), whose reconstruction
is done here in the space of attention itself. Its GELU in the place of the threshold does not converge.

Shape suffixes: B images, A heads, N tokens, D channels a head, L edited blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.attention.edit import Call, LearnedEdit, Pass
from wsss.sections import EditSection

STEPS = 3
LEAST_SUM = 1e-4
"""Rows that sum to less, since the threshold took nearly all, are divided by this: they stay short, and so do their
gradients."""
HIGHEST = 6.0
"""The threshold begins at softplus(-6) = 0.0025 times the rate."""


class Sparse(LearnedEdit):
    """From the softmax on, with q and k of unit length, ``STEPS`` times:

        W <- relu(W - rate (W k - q) k' / N - |rate| softplus(threshold - 6)),   each row divided by its sum.

    The control is one step of that descent without the threshold.

    Attributes:
        rate_LA: of each block and head; it starts at 0.
        threshold_LA: it starts at 0.
    """

    has_control = True

    def __init__(self, layers: range, num_heads: int, section: EditSection) -> None:
        super().__init__(layers, num_heads, section)
        self.rate_LA = nn.Parameter(torch.zeros(len(layers), num_heads))
        if not self.control:
            self.threshold_LA = nn.Parameter(torch.zeros(len(layers), num_heads))

    def weights(self, weights_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        """Replace the attention."""
        place = call.layer - self.layers.start
        rate_A11 = self.rate_LA[place, :, None, None]
        least_A11: Tensor | float = 0.0
        if not self.control:
            least_A11 = rate_A11.abs() * F.softplus(self.threshold_LA[place, :, None, None] - HIGHEST)
        query_BAND = F.normalize(call.query_BAND.float(), dim=-1)
        key_BAND = F.normalize(call.key_BAND.float(), dim=-1)
        for _ in range(1 if self.control else STEPS):
            missing_BAND = (weights_BANN @ key_BAND - query_BAND) / weights_BANN.shape[-1]
            step_BANN = rate_A11 * (missing_BAND @ key_BAND.transpose(-2, -1))
            weights_BANN = F.relu(weights_BANN - step_BANN - least_A11)
            weights_BANN = weights_BANN / weights_BANN.sum(dim=-1, keepdim=True).clamp_min(LEAST_SUM)
        return weights_BANN
