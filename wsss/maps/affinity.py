"""Spread class maps over the object by the network's own attention between patches.

The attention from patch to patch, averaged over heads and summed over blocks, is an affinity: patches attend to those
of their own object (TS-CAM, Gao et al. 2021; MCTformer, Xu et al. 2022). One step replaces the evidence of a patch by
the mean over the patches it attends to. That is attention with the maps as its values, so the fused kernel does it and
no N x N matrix is made. The kernel wants values as wide as keys, so maps fill up what they lack with zeros.

Shape suffixes: B images, K maps of each, A heads, N tokens (P prefix tokens first), M patch tokens, D channels a head.
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

    With autocast off, which would make the products in half precision.

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
        values_BNK = F.pad(torch.cat([maps_BKM, ones_B1M], dim=1), (num_prefix_tokens, 0)).transpose(1, 2)
        carried_BNK = torch.stack([_carry(attention, values_BNK) for attention in attentions]).sum(dim=0)
        carried_BKM = carried_BNK[:, num_prefix_tokens:].transpose(1, 2)
        maps_BKM = carried_BKM[:, :-1] / carried_BKM[:, -1:]
    return maps_BKM


def _carry(attention: Attention, values_BNK: Tensor) -> Tensor:
    """One block's attention, averaged over heads, applied to values: (B, N, K)."""
    query, key = attention.query_BAND.detach().float(), attention.key_BAND.detach().float()
    carried = []
    for values_BND in torch.split(values_BNK, query.shape[-1], dim=-1):
        missing = query.shape[-1] - values_BND.shape[-1]
        values_BAND = F.pad(values_BND, (0, missing)).contiguous()[:, None].expand_as(query)
        carried_BAND = F.scaled_dot_product_attention(query, key, values_BAND, scale=attention.scale)
        carried.append(carried_BAND.mean(dim=1)[..., : values_BND.shape[-1]])
    return torch.cat(carried, dim=-1)
