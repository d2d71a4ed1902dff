"""Edits that ask what attention is good for: they take something away, and one looks at what the network says then.

Shape suffixes: B images, A heads, N tokens (P prefix tokens first).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wsss.attention.edit import Call, Edit, Pass


class QueryMean(Edit):
    """Every patch attends as the patches do on average, so no place differs from another (FCViT, arXiv 2212.12552)."""

    def weights(self, weights_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        """Replace the rows of all patches by their mean."""
        prefix = of.num_prefix_tokens
        patches_BAN = weights_BANN[:, :, prefix:].mean(dim=2, keepdim=True)
        return torch.cat([weights_BANN[:, :, :prefix], patches_BAN.expand_as(weights_BANN[:, :, prefix:])], dim=2)


class Uniform(Edit):
    """Some tokens attend to all patches alike and to no prefix token (DREAL's counterfactual, arXiv 2007.06156).

    Args:
        rows: of the class token, of all patches ("pool"), or both.
        layers: indices of the blocks; None edits all.
    """

    def __init__(self, rows: Literal["token", "pool", "both"], layers: range | None = None) -> None:
        super().__init__(layers)
        self.rows = rows

    def weights(self, weights_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        """Replace the rows."""
        prefix, tokens = of.num_prefix_tokens, weights_BANN.shape[-1]
        even_N = weights_BANN.new_zeros(tokens)
        even_N[prefix:] = 1 / (tokens - prefix)
        replaced_N1 = torch.zeros(tokens, 1, dtype=torch.bool, device=weights_BANN.device)
        if self.rows in ("token", "both"):
            replaced_N1[0] = True
        if self.rows in ("pool", "both"):
            replaced_N1[prefix:] = True
        return torch.where(replaced_N1, even_N, weights_BANN)
