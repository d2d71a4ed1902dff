"""Readouts: heads that turn tokens into class logits.

The attribute ``fed`` names the tokens that a head reads: class maps read the attention rows of these tokens.

Shape suffixes: B images, C channels, N patch tokens, h x w their grid, K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wsss.models.backbone import Features

Fed = Literal["token", "pool", "both"]


class Readout(nn.Module):
    """A multi-label head.

    Attributes:
        fed: "token" where the head reads the class token, "pool" where it reads the mean of the patch tokens alone,
            "both" where it adds a score of each.
    """

    fed: Fed

    def forward(self, features: Features) -> Tensor:
        """(B, K) logits."""
        raise NotImplementedError

    def cam(self, features: Features) -> Tensor:
        """(B, K, h, w): the linear head applied at each patch (CAM, Zhou et al. 2016)."""
        raise NotImplementedError


class ProjectReadout(Readout):
    """The paper's readout: each patch token joined with the class token, projected, then averaged over the patches.

    Both kinds of token receive gradient. GETAM reads the attention row of the class token, which enters every patch.
    """

    fed = "token"

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * embed_dim, embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    def _projected(self, features: Features) -> Tensor:
        assert features.class_BC is not None
        class_BNC = features.class_BC[:, None].expand_as(features.patches_BNC)
        return nn.functional.gelu(self.project(torch.cat([features.patches_BNC, class_BNC], dim=-1)))

    def forward(self, features: Features) -> Tensor:
        """(B, K) logits."""
        return torch.as_tensor(self.head(self._projected(features).mean(dim=1)))

    def cam(self, features: Features) -> Tensor:
        """The head at each patch, before the mean; the mean over the patches is the logit without its bias."""
        return _on_grid(self._projected(features), self.head, features.grid)


class TokenReadout(Readout):
    """A linear head on the class token."""

    fed = "token"

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, features: Features) -> Tensor:
        """(B, K) logits."""
        return torch.as_tensor(self.head(features.class_BC))

    def cam(self, features: Features) -> Tensor:
        """The head of the class token applied to the patch tokens."""
        return _on_grid(features.patches_BNC, self.head, features.grid)


class PoolReadout(Readout):
    """A linear head on the mean of the patch tokens; the only one for backbones without a class token."""

    fed = "pool"

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, features: Features) -> Tensor:
        """(B, K) logits."""
        return torch.as_tensor(self.head(features.patches_BNC.mean(dim=1)))

    def cam(self, features: Features) -> Tensor:
        """The head at each patch, before the mean."""
        return _on_grid(features.patches_BNC, self.head, features.grid)


class BothReadout(Readout):
    """The sum of a head on the class token and a head on the pooled patches."""

    fed = "both"

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.token_head = nn.Linear(embed_dim, num_classes)
        self.pool_head = nn.Linear(embed_dim, num_classes, bias=False)

    def forward(self, features: Features) -> Tensor:
        """(B, K) logits."""
        return torch.as_tensor(self.token_head(features.class_BC) + self.pool_head(features.patches_BNC.mean(dim=1)))

    def cam(self, features: Features) -> Tensor:
        """The head of the patch tokens at each patch, before the mean."""
        return _on_grid(features.patches_BNC, self.pool_head, features.grid)


READOUTS: dict[str, type[ProjectReadout] | type[TokenReadout] | type[PoolReadout] | type[BothReadout]] = {
    "project": ProjectReadout,
    "token": TokenReadout,
    "pool": PoolReadout,
    "both": BothReadout,
}


def _on_grid(tokens_BNC: Tensor, head: nn.Linear, grid: tuple[int, int]) -> Tensor:
    maps_BNK = nn.functional.linear(tokens_BNC, head.weight)
    return maps_BNK.transpose(1, 2).reshape(len(tokens_BNC), -1, *grid)
