"""Spread class maps over the object by the network's own attention between patches.

The attention from patch to patch, averaged over heads and summed over blocks, is an affinity: patches attend to those
of their own object (TS-CAM, Gao et al. 2021; MCTformer, Xu et al. 2022). One step replaces the evidence of a patch by
the mean over the patches it attends to. That is attention with the maps as its values, so the fused kernel does it and
no N x N matrix is made.

Shape suffixes: B images, K classes, A heads, N tokens (P prefix tokens first), M patch tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.maps.tape import Attention


@torch.no_grad()
def spread(maps_BKM: Tensor, attentions: Sequence[Attention], num_prefix_tokens: int, steps: int = 1) -> Tensor:
    """Multiply maps by the row-normalised patch-to-patch attention, summed over blocks, ``steps`` times.

    Args:
        maps_BKM: class maps over the patches.
        attentions: of the blocks that make the affinity.
        num_prefix_tokens: P; what patches give to prefix tokens does not count.
        steps: how often; 0 returns the maps.

    Returns:
        (B, K, M) float32; a constant map stays what it is.
    """
    maps_BKM = maps_BKM.float()
    for _ in range(steps):
        ones_B1M = maps_BKM.new_ones(maps_BKM.shape[0], 1, maps_BKM.shape[2])
        values_BKN = F.pad(torch.cat([maps_BKM, ones_B1M], dim=1), (num_prefix_tokens, 0))
        carried_BKM = torch.stack([_carry(attention, values_BKN) for attention in attentions]).sum(dim=0)
        carried_BKM = carried_BKM[:, :, num_prefix_tokens:]
        maps_BKM = carried_BKM[:, :-1] / carried_BKM[:, -1:]
    return maps_BKM


def _carry(attention: Attention, values_BKN: Tensor) -> Tensor:
    """One block's attention, averaged over heads, applied to values: (B, K, N)."""
    query, key = attention.query_BAND.detach().float(), attention.key_BAND.detach().float()
    values_BANK = values_BKN.transpose(1, 2)[:, None].expand(-1, query.shape[1], -1, -1)
    carried_BANK = F.scaled_dot_product_attention(query, key, values_BANK, scale=attention.scale)
    return carried_BANK.mean(dim=1).transpose(1, 2)
