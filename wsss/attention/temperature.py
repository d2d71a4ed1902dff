"""The temperature of attention: the softmax is taken of logits divided by it. Above 1 attention is flatter.

Shape suffixes: L edited blocks, A heads.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from wsss.attention.edit import Call, Edit, LearnedEdit, Pass
from wsss.sections import EditSection


class Temperature(Edit):
    """One temperature for all heads, given by hand.

    Args:
        value: above 0; 1 changes nothing.
        layers: indices of the blocks; None edits all.
    """

    def __init__(self, value: float, layers: range | None = None) -> None:
        super().__init__(layers)
        self.value = value

    def call(self, call: Call, of: Pass) -> Call:
        """Divide the scale."""
        return replace(call, scale=call.scale / self.value)


class LearnedTemperature(LearnedEdit):
    """A temperature for each block and head, learned. It starts at 1.

    Attributes:
        log_LA: its logarithm.
    """

    def __init__(self, layers: range, num_heads: int, section: EditSection) -> None:
        super().__init__(layers, num_heads, section)
        self.log_LA = nn.Parameter(torch.zeros(len(layers), num_heads))

    def call(self, call: Call, of: Pass) -> Call:
        """Divide the queries of each head."""
        inverse_A11 = self.log_LA[call.layer - self.layers.start].neg().exp()[:, None, None]
        return replace(call, query_BAND=(call.query_BAND * inverse_A11).to(call.query_BAND.dtype))
