"""Spread class maps over the object by the network's own attention between patches.

The attention from patch to patch, averaged over heads and summed over blocks, is an affinity: patches attend to those
of their own object (TS-CAM, Gao et al. 2021; MCTformer, Xu et al. 2022). One step replaces the evidence of a patch by
the mean over the patches it attends to. That is attention with the maps as its values, so the fused kernel computes it
and no N x N matrix is made. The kernel needs values as wide as keys, so maps are padded with zeros to that width.

Shape suffixes: B images, K maps of each, A heads, N tokens (P prefix tokens first), M patch tokens, D channels a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.maps.tape import Attention

LEAST = torch.finfo(torch.float32).tiny
"""Smallest attention from a patch to all patches that maps are divided by, so that 0 / 0 gives 0."""


@torch.no_grad()
def spread(maps_BKM: Tensor, attentions: Sequence[Attention], num_prefix_tokens: int, steps: int = 1) -> Tensor:
    """Multiply maps by the row-normalised patch-to-patch attention, summed over blocks, ``steps`` times.

    To be called with autocast off, under which the products would be in half precision.

    Args:
        maps_BKM: class maps over the patches.
        attentions: of the blocks that make the affinity.
        num_prefix_tokens: P; the attention from patches to prefix tokens does not count.
        steps: how often; 0 returns the maps.

    Returns:
        (B, K, M) float32. A constant map stays the same, but for patches that attend to prefix tokens alone, in all
        blocks and up to float32: they become 0.
    """
    maps_BKM = maps_BKM.float()
    for _ in range(steps):
        ones_B1M = maps_BKM.new_ones(maps_BKM.shape[0], 1, maps_BKM.shape[2])
        values_BNK = F.pad(torch.cat([maps_BKM, ones_B1M], dim=1), (num_prefix_tokens, 0)).transpose(1, 2)
        carried_BNK = torch.stack([_carry(attention, values_BNK) for attention in attentions]).sum(dim=0)
        carried_BKM = carried_BNK[:, num_prefix_tokens:].transpose(1, 2)
        maps_BKM = carried_BKM[:, :-1] / carried_BKM[:, -1:].clamp_min(LEAST)
    return maps_BKM


def _carry(attention: Attention, values_BNK: Tensor) -> Tensor:
    """One block's attention, averaged over heads, applied to values: (B, N, K)."""
    like_BAND = attention.query_BAND
    carried = []
    for values_BND in torch.split(values_BNK, like_BAND.shape[-1], dim=-1):
        missing = like_BAND.shape[-1] - values_BND.shape[-1]
        values_BAND = F.pad(values_BND, (0, missing)).contiguous()[:, None].expand_as(like_BAND)
        carried.append(attention.carry(values_BAND).mean(dim=1)[..., : values_BND.shape[-1]])
    return torch.cat(carried, dim=-1)
