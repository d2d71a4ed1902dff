"""From which block on class maps should be read, and what each block adds to the logits.

A map is good where the class's logit falls when the patches that it marks are blanked (deletion). Masks are not needed.
Ranges of blocks up to the last are compared, since class maps are sums over blocks; benchmarks/layers.py compares the
choice with the last block alone and with all blocks.

Shape suffixes: B images, K classes, R present (image, class) pairs, L blocks, h x w patch grid, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wsss.attention.interventions import Uniform
from wsss.maps.present import PresentMaps
from wsss.models.network import Network
from wsss.models.readout import Fed

BLANKED = 0.2
"""Share of the patches that are blanked: those with the largest values of a map."""
ALIKE = 0.05
"""Ranges whose deletion is within this share of the largest one are as good."""


def blank(images_R3HW: Tensor, maps_Rhw: Tensor, share: float = BLANKED) -> Tensor:
    """Fill the strongest patches of a map with the mean colour of its image.

    Args:
        images_R3HW: in whole patches.
        maps_Rhw: one for each image, on the grid of its patches.
        share: of the patches, in [0, 1]; at least one patch is filled.
    """
    count = max(1, round(share * maps_Rhw[0].numel()))
    flat_RM = maps_Rhw.flatten(1)
    chosen_RM = torch.zeros_like(flat_RM).scatter_(1, flat_RM.topk(count, dim=1).indices, 1.0)
    chosen_R1hw = chosen_RM.reshape(maps_Rhw.shape)[:, None]
    chosen_R1HW = F.interpolate(chosen_R1hw, size=images_R3HW.shape[2:], mode="nearest").bool()
    return torch.where(chosen_R1HW, images_R3HW.mean(dim=(2, 3), keepdim=True), images_R3HW)


@torch.no_grad()
def deletions(network: Network, images_B3HW: Tensor, logits_BK: Tensor, maps_by_start: Sequence[PresentMaps]) -> Tensor:
    """How far each class's logit falls when the patches that its map marks are blanked, (R, L) on the CPU.

    Args:
        network: in ``eval`` mode.
        images_B3HW: in [0, 1], in whole patches.
        logits_BK: of these images.
        maps_by_start: the maps of blocks l..L-1 for each l.
    """
    image_R, class_R = maps_by_start[0].image_R, maps_by_start[0].class_R
    if len(image_R) == 0:
        return torch.empty(0, len(maps_by_start))
    there_R = image_R.to(images_B3HW.device)
    falls = []
    for maps in maps_by_start:
        blanked_R3HW = blank(images_B3HW[there_R], maps.values_Rhw)
        parts = [network.classify(some) for some in torch.split(blanked_R3HW, len(images_B3HW))]
        logits_RK = torch.cat(parts).float().cpu()
        falls.append(logits_BK.float().cpu()[image_R, class_R] - logits_RK[torch.arange(len(class_R)), class_R])
    return torch.stack(falls, dim=1)


@torch.no_grad()
def gains(network: Network, images_B3HW: Tensor, logits_BK: Tensor, present_BK: Tensor, fed: Fed) -> Tensor:
    """What each block's attention adds to the logits of the present classes, (R, L) on the CPU.

    The rows that explain the class become uniform over the patches in one block at a time; the gain is how far the
    logit falls (the reward of DREAL, arXiv 2007.06156).

    Args:
        network: in ``eval`` mode.
        images_B3HW: in [0, 1].
        logits_BK: of these images.
        present_BK: bool, on the host.
        fed: whose rows explain the class: of the class token, of the patches, or both.
    """
    falls = []
    for layer in range(network.backbone.depth):
        with network.edited(Uniform(fed, range(layer, layer + 1))):
            without_BK = network.classify(images_B3HW)
        falls.append((logits_BK.float() - without_BK.float()).cpu()[present_BK])
    return torch.stack(falls, dim=1)


def best_start(deletion_L: NDArray[np.float64]) -> int:
    """The first block of the range whose maps have the largest deletion."""
    return int(np.argmax(deletion_L))


def alike(deletion_L: NDArray[np.float64]) -> list[int]:
    """First blocks of the ranges that are as good as the best one (``ALIKE``)."""
    least = deletion_L.max() - ALIKE * abs(deletion_L.max())
    return [layer for layer, value in enumerate(deletion_L.tolist()) if value >= least]
