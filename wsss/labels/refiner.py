"""PAMR whose weights and steps are learnt: its iteration unrolled into steps with parameters.

After algorithm unrolling (Monga, Li and Eldar, arXiv 1912.10557). The constants of `wsss.labels.pamr` become numbers:
how much a ring of neighbours looks at colour and how much it counts, and how far each step stays where it was or goes
back to the first maps. All are 0 at the start, which is exactly PAMR.

Shape suffixes: B images, S maps of an image, N neighbours, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsss.labels.pamr import DILATIONS, ITERATIONS, few_at_once, negated_differences, neighbours, pamr_apply, replicate
from wsss.maps.present import PresentMaps

RING = 8
"""Neighbours of a ring."""


class Refiner(nn.Module):
    """Refines maps so that they follow the edges of the image.

    The weight of neighbour n, of ring r, is ``softmax_n(-exp(contrast_r) d_n + bias_r)``, where d_n is the colour
    difference of PAMR. Step k replaces the maps m by ``n + stay_k (m - n) + anchor_k (m_0 - n)``, where n is the
    weighted mean of the neighbours and m_0 are the first maps, and keeps them in [0, 1].

    Args:
        rings: number of distances of neighbours.
        steps: number of steps.

    Attributes:
        contrast: (rings,).
        bias: (rings,).
        stay: (steps,).
        anchor: (steps,).
    """

    def __init__(self, rings: int = len(DILATIONS), steps: int = ITERATIONS) -> None:
        super().__init__()
        self.contrast = nn.Parameter(torch.zeros(rings))
        self.bias = nn.Parameter(torch.zeros(rings))
        self.stay = nn.Parameter(torch.zeros(steps))
        self.anchor = nn.Parameter(torch.zeros(steps))

    def forward(self, differences_BNHW: Tensor, maps_BSHW: Tensor, dilations: Sequence[int]) -> Tensor:
        """Refined maps (B, S, H, W) in [0, 1]; differentiable.

        Args:
            differences_BNHW: from `negated_differences`, with the same distances.
            maps_BSHW: any number of maps of each image, in [0, 1].
            dilations: distances, in pixels, of the rings of neighbours.
        """
        contrast_N11, bias_N11 = (
            values.repeat_interleave(RING)[:, None, None] for values in (self.contrast.exp(), self.bias)
        )
        weights_BNHW = torch.addcmul(bias_N11, differences_BNHW, contrast_N11).softmax(dim=1)
        first_BSHW = maps_BSHW
        for stay, anchor in zip(self.stay, self.anchor, strict=True):
            mean_BSHW: Tensor = _Mean.apply(weights_BNHW, maps_BSHW, dilations)
            moved_BSHW = mean_BSHW + stay * (maps_BSHW - mean_BSHW) + anchor * (first_BSHW - mean_BSHW)
            maps_BSHW = moved_BSHW.clamp(0, 1)
        return maps_BSHW

    @torch.no_grad()
    def refine(self, images_B3HW: Tensor, maps: PresentMaps, dilations: Sequence[int] = DILATIONS) -> PresentMaps:
        """`wsss.labels.pamr.pamr` with these parameters.

        Args:
            images_B3HW: images in [0, 1].
            maps: class scores of these images in [0, 1], at their size.
            dilations: distances, in pixels, of the rings of neighbours.
        """
        device = images_B3HW.device
        if self.bias.device != device:
            self.to(device)
        return few_at_once(
            images_B3HW,
            maps,
            lambda some_B3HW, packed_BSHW: self(negated_differences(some_B3HW, dilations), packed_BSHW, dilations),
        )


class _Mean(torch.autograd.Function):
    """The weighted mean of the neighbours of each pixel: PAMR's own sums, and their gradients in as little memory."""

    @staticmethod
    def forward(ctx: Any, weights_BNHW: Tensor, maps_BSHW: Tensor, dilations: Sequence[int]) -> Tensor:
        """One iteration of `pamr_apply`."""
        ctx.save_for_backward(weights_BNHW, maps_BSHW)
        ctx.dilations = dilations
        return pamr_apply(weights_BNHW, maps_BSHW, iterations=1, dilations=dilations)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of the weights and of the maps."""
        (gradient_BSHW,), (weights_BNHW, maps_BSHW) = gradients, ctx.saved_tensors
        with torch.enable_grad():
            inner_BSHW = maps_BSHW.detach().requires_grad_()
            padded = replicate(inner_BSHW, max(ctx.dilations))
        of_weights_BNHW, of_padded = torch.empty_like(weights_BNHW), torch.zeros_like(padded)
        around = zip(neighbours(padded.detach(), ctx.dilations), neighbours(of_padded, ctx.dilations), strict=True)
        for n, (neighbour_BSHW, into_BSHW) in enumerate(around):
            torch.sum(gradient_BSHW * neighbour_BSHW, dim=1, out=of_weights_BNHW[:, n])
            into_BSHW.addcmul_(weights_BNHW[:, n : n + 1], gradient_BSHW)
        (of_maps_BSHW,) = torch.autograd.grad(padded, inner_BSHW, of_padded)
        return of_weights_BNHW, of_maps_BSHW, None
