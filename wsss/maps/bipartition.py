"""The object of an image without any label: its patches cut in two by their likeness.

The normalised cut (Shi and Malik 2000) of the graph whose patches are joined where the keys of their attention are
alike, after TokenCut (Wang et al., arXiv 2202.11539).

Shape suffixes: B images, M patches, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ALIKE = 0.4
"""Cosine of two keys above which their patches are joined; chosen on 120 photos of horses, dogs and sheep
(benchmarks/RESULTS.md)."""
APART = 1e-5
"""Weight between other patches, so that the graph is connected."""


@torch.no_grad()
def object_side(key_BMC: Tensor, attention_BM: Tensor) -> Tensor:
    """The patches of the object: of the two sides of the cut the one that the attention prefers.

    An image takes M x M numbers and the time of their eigenvectors: hundredths of a second for 400 patches.

    Args:
        key_BMC: keys of the patches, of all heads.
        attention_BM: how much the explaining token attends to each patch.

    Returns:
        (B, M) float32, 1 on the object and 0 elsewhere; 1 everywhere where there are fewer than two patches.
    """
    if key_BMC.shape[1] < 2:
        return torch.ones_like(attention_BM, dtype=torch.float32)
    return torch.stack([_side(*one) for one in zip(key_BMC, attention_BM, strict=True)])


def _side(key_MC: Tensor, attention_M: Tensor) -> Tensor:
    key_MC = F.normalize(key_MC.float(), dim=-1)
    joined_MM = torch.where(key_MC @ key_MC.T > ALIKE, 1.0, APART).double()
    root_M = joined_MM.sum(dim=1).sqrt()
    _, vectors_MM = torch.linalg.eigh(joined_MM / (root_M[:, None] * root_M))  # eigenvalues ascend; the last is 1
    cut_M = vectors_MM[:, -2] / root_M
    preferred_M = attention_M.double() - attention_M.double().mean()
    cut_M = torch.where((cut_M * preferred_M).sum() < 0, -cut_M, cut_M)
    return (cut_M > cut_M.mean()).float()
