"""Patches attend less to patches of other objects, as a guide tells them apart (OAMixer, arXiv 2212.06595).

Shape suffixes: B images, N tokens (P prefix tokens first), M patches, K channels of the guide, L edited blocks, h x w
any grid.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.attention.edit import Call, LearnedEdit, Pass
from wsss.sections import EditSection

KEPT = 0.5
"""Share of the images of a training step that keep their guide, so that the network does without one too."""


class ObjectAware(LearnedEdit):
    """Add ``-strength * distance`` to the logits between patches: their weights are multiplied by its exponential.

    The distance is that of the guide at two patches, in [0, 1]. The guide is the colour of the image, or what the pass
    brings (label maps, as shares of background and classes); without it nothing is added. The control learns with the
    guide of the image before it in the batch, and is used without one.

    Attributes:
        raw_L: the strength of each block is its softplus, 1 at the start.
        ramp: factor of all strengths. It begins at 0 and is 1 after the warm-up of the training.
        part, parts: see `wsss.models.decoder.ChannelDropout`; here guides are dropped.
    """

    has_control = True
    ramp: Tensor
    part, parts = 0, 1

    def __init__(self, layers: range, num_heads: int, section: EditSection) -> None:
        super().__init__(layers, num_heads, section)
        self.by_colour = section.guide == "colour"
        self.raw_L = nn.Parameter(torch.full((len(layers),), math.log(math.expm1(1.0))))
        self.register_buffer("ramp", torch.zeros(()))

    def warm_up(self, progress: float) -> None:
        """Raise the strengths; what was reached in an earlier training stays."""
        self.ramp.clamp_(min=progress)

    def call(self, call: Call, of: Pass) -> Call:
        """Add the bias."""
        distance_B1NN = self._distance(of)
        if distance_B1NN is None:
            return call
        bias_B1NN = -self.ramp * F.softplus(self.raw_L[call.layer - self.layers.start]) * distance_B1NN
        return replace(call, bias_BANN=bias_B1NN if call.bias_BANN is None else call.bias_BANN + bias_B1NN)

    @torch.no_grad()
    def _distance(self, of: Pass) -> Tensor | None:
        """The distance of all tokens, 0 at prefix tokens and where the guide is dropped; computed once a pass."""
        guide_BKhw = of.images_B3HW if self.by_colour else of.guide_BKhw
        if guide_BKhw is None or (self.control and not self.training):
            return None
        key = f"object-aware {id(self)}"
        if key not in of.memory:
            distance_BMM = guide_distance(guide_BKhw, of.grid, widest=self.by_colour)
            if self.control:
                distance_BMM = distance_BMM.roll(1, dims=0)
            if self.training:
                distance_BMM = distance_BMM * self._kept(len(distance_BMM), distance_BMM.device)
            of.memory[key] = F.pad(distance_BMM, (of.num_prefix_tokens, 0, of.num_prefix_tokens, 0))[:, None]
        return of.memory[key]

    def _kept(self, images: int, device: torch.device) -> Tensor:
        """(B, 1, 1) bool; drawn for the whole batch, of which these images are a part."""
        kept = torch.rand(images * self.parts, 1, 1, device=device) < KEPT
        return kept[images * self.part : images * (self.part + 1)]


def guide_distance(guide_BKhw: Tensor, grid: tuple[int, int], *, widest: bool) -> Tensor:
    """How far the guide differs between two patches: half the sum over channels of the difference of its means there.

    Args:
        guide_BKhw: channels in [0, 1]; shares sum to at most 1.
        grid: of the patches.
        widest: divide by the largest distance in the image; an image of one colour has distance 0.

    Returns:
        (B, M, M) float32 in [0, 1].
    """
    patches_BMK = F.adaptive_avg_pool2d(guide_BKhw.float(), grid).flatten(2).transpose(1, 2)
    distance_BMM = torch.cdist(patches_BMK, patches_BMK, p=1) / 2
    if widest:
        distance_BMM = distance_BMM / distance_BMM.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    return distance_BMM
