"""DPT decoder: from four taps of a plain ViT to dense scores.

The class of a patch is almost a linear function of its token in a trained backbone, but a fresh DPT needs thousands of
steps to learn to use it. So a linear layer on the deepest tap scores the patches, and the DPT adds a correction that
starts at zero.

Each tap is reassembled into a map of its own scale, and the maps are fused from coarse to fine. The finer maps have
most of the pixels, so they use depthwise separable convolutions, and the finest has fewer channels. Norms are over
groups of channels of one image: images of a batch do not influence each other, and a batch of one works.

Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction, 2021. Channel attention in the fusion:
GETAM, arXiv 2112.02841; Hu, Shen, Sun: Squeeze-and-Excitation Networks, 2018.

Shape suffixes: B images, C channels of the backbone, N = h * w patches, h x w grid of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch.nn.functional as F
from torch import Tensor, nn

NUM_TAPS = 4
OUTPUT_SCALE = 8
"""Rows (columns) of the scores for each row (column) of the grid."""

RESIDUAL_GAIN = 0.2
"""Initial weight of residual branches: near the identity, yet trainable."""


class DPTDecoder(nn.Module):
    """Four taps of a ViT to scores of ``num_outputs`` classes at 8 times the grid.

    Args:
        embed_dim: channels of the taps.
        num_outputs: classes with the background.
        channels: channels of the fused maps; half of them at 4 times the grid, a third at 8 times (at least one).
        has_class_token: whether taps bring a class token, which is then joined with each patch token.
        dropout: share of the channels of the head dropped in training.
    """

    def __init__(
        self,
        embed_dim: int,
        num_outputs: int,
        *,
        channels: int = 96,
        has_class_token: bool,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        fine, finest = max(channels // 2, 1), max(channels // 3, 1)
        self.readouts = nn.ModuleList(
            ProjectReadout(embed_dim) if has_class_token else IgnoreToken() for _ in range(NUM_TAPS)
        )
        self.reassemble = nn.ModuleList(
            [
                Reassemble(embed_dim, fine, nn.ConvTranspose2d(fine, fine, 4, stride=4), True),
                Reassemble(embed_dim, channels, nn.ConvTranspose2d(channels, channels, 2, stride=2), True),
                Reassemble(embed_dim, channels, nn.Identity()),
                Reassemble(embed_dim, channels, nn.Conv2d(channels, channels, 3, stride=2, padding=1)),
            ]
        )
        self.fusions = nn.ModuleList(
            [
                Fusion(fine, finest, separable=True),
                Fusion(channels, fine, separable=True),
                Fusion(channels, channels),
                Fusion(channels, channels, has_skip=False),
            ]
        )
        self.head = nn.Sequential(
            conv3x3(finest, finest, separable=True),
            group_norm(finest),
            nn.ReLU(inplace=True),
            ChannelDropout(dropout),
        )
        self.classify = nn.Conv2d(finest, num_outputs, 1)
        self.coarse = LinearReading(embed_dim, num_outputs, has_class_token=has_class_token)
        self._initialise()

    def forward(self, taps: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Scores before the softmax.

        Args:
            taps: four pairs, shallow to deep: patch tokens (B, C, h, w) and the class token (B, C), which is
                None where the backbone has none.

        Returns:
            (B, num_outputs, 8h, 8w).
        """
        maps = [
            reassemble(readout(patches, token))
            for (patches, token), readout, reassemble in zip(taps, self.readouts, self.reassemble, strict=True)
        ]
        height, width = taps[0][0].shape[-2:]
        sizes = [(OUTPUT_SCALE * height, OUTPUT_SCALE * width)]
        sizes += [(fine.shape[-2], fine.shape[-1]) for fine in maps[:-1]]
        fused = self.fusions[-1](maps[-1], None, sizes[-1])
        for index in reversed(range(NUM_TAPS - 1)):
            fused = self.fusions[index](maps[index], fused, sizes[index])
        detail: Tensor = self.classify(self.head(fused))
        coarse = F.interpolate(self.coarse(*taps[-1]), size=sizes[0], mode="bilinear", align_corners=False)
        return coarse + detail

    def _initialise(self) -> None:
        """Convolutions keep the variance of the taps; residual branches start small, gates near 1, all scores at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                is_transposed = isinstance(module, nn.ConvTranspose2d)  # kernel = stride: one input a pixel
                fan_in = module.in_channels if is_transposed else module.weight[0].numel()
                nn.init.normal_(module.weight, std=fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualUnit):
                nn.init.constant_(module.norm2.weight, RESIDUAL_GAIN)
            elif isinstance(module, ChannelAttention):
                nn.init.normal_(module.expand.weight, std=0.01)
        nn.init.zeros_(self.classify.weight)


class ChannelDropout(nn.Dropout2d):
    """Dropout of whole channels of an image; a batch may be computed in parts.

    Each part draws for the whole batch and takes its own rows. So with the same seed the parts together are the batch.

    Attributes:
        part, parts: which rows of the batch the images are: the part of this number, from 0, of so many equal ones.
    """

    part, parts = 0, 1

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The shape of ``x``."""
        if not self.training:
            return x_BCHW
        size, channels = x_BCHW.shape[:2]
        kept = F.dropout2d(x_BCHW.new_ones(size * self.parts, channels, 1, 1), self.p)
        return x_BCHW * kept[size * self.part : size * (self.part + 1)]


class LinearReading(nn.Module):
    """Scores of each patch: a linear layer on its token plus one on the class token, both layer-normalised."""

    def __init__(self, embed_dim: int, num_outputs: int, *, has_class_token: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.patch = nn.Linear(embed_dim, num_outputs)
        self.token = nn.Linear(embed_dim, num_outputs, bias=False) if has_class_token else None
        for linear in (self.patch, self.token):
            if linear is not None:
                nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.patch.bias)

    def forward(self, patches_BChw: Tensor, token_BC: Tensor | None) -> Tensor:
        """(B, num_outputs, h, w)."""
        scores_BKhw: Tensor = self.patch(self.norm(patches_BChw.movedim(1, -1))).movedim(-1, 1)
        if self.token is not None:
            scores_BKhw = scores_BKhw + self.token(self.norm(token_BC))[:, :, None, None]
        return scores_BKhw


class ProjectReadout(nn.Module):
    """Join each patch token with the class token: Linear 2C -> C, GELU."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, patches_BChw: Tensor, token_BC: Tensor) -> Tensor:
        """(B, C, h, w). The product with the class token is computed once an image, not once a patch."""
        patch_weight, token_weight = self.project.weight.chunk(2, dim=1)
        patch_part_BNC = F.linear(patches_BChw.flatten(2).transpose(1, 2), patch_weight)
        token_part_BC = F.linear(token_BC, token_weight, self.project.bias)
        joined_BNC = F.gelu(patch_part_BNC + token_part_BC[:, None])
        return joined_BNC.transpose(1, 2).reshape(patches_BChw.shape)


class IgnoreToken(nn.Module):
    """The readout of a backbone without a class token: the patch tokens as they are."""

    def forward(self, patches_BChw: Tensor, token_BC: Tensor | None) -> Tensor:
        """(B, C, h, w)."""
        return patches_BChw


class Reassemble(nn.Module):
    """Project the tokens of a tap, resample them to the tap's scale, mix neighbours by a 3x3 convolution."""

    def __init__(self, embed_dim: int, channels: int, resample: nn.Module, separable: bool = False) -> None:
        super().__init__()
        self.project = nn.Conv2d(embed_dim, channels, 1)
        self.resample = resample
        self.mix = conv3x3(channels, channels, separable=separable)

    def forward(self, tokens_BChw: Tensor) -> Tensor:
        """A map at 4, 2, 1 or 1/2 (rounded up) times the grid."""
        mixed: Tensor = self.mix(self.resample(self.project(tokens_BChw)))
        return mixed


class Fusion(nn.Module):
    """Add a tap to the coarser fused map, weight the channels, refine, upsample.

    The 1x1 convolution and the bilinear upsampling commute; convolving first is cheaper.
    """

    def __init__(self, channels: int, out_channels: int, *, separable: bool = False, has_skip: bool = True) -> None:
        super().__init__()
        self.skip = ResidualUnit(channels, separable=separable) if has_skip else nn.Identity()
        self.attention = ChannelAttention(channels)
        self.refine = ResidualUnit(channels, separable=separable)
        self.out = nn.Conv2d(channels, out_channels, 1)

    def forward(self, tap: Tensor, below: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Fuse ``tap`` with ``below`` (same shape; None for the coarsest tap) and upsample to ``size``."""
        fused = self.skip(tap)
        if below is not None:
            fused = fused + below
        fused = self.out(self.refine(self.attention(fused)))
        return F.interpolate(fused, size=size, mode="bilinear", align_corners=False)


class ResidualUnit(nn.Module):
    """Pre-activation residual unit: x + norm(conv(relu(norm(conv(relu(x))))))."""

    def __init__(self, channels: int, *, separable: bool) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, separable=separable)
        self.norm1 = group_norm(channels)
        self.conv2 = conv3x3(channels, channels, separable=separable)
        self.norm2 = group_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The shape of ``x``."""
        residual: Tensor = self.norm1(self.conv1(F.relu(x)))
        residual = self.norm2(self.conv2(F.relu(residual)))
        return x + residual


class ChannelAttention(nn.Module):
    """Squeeze and excite: a gate in (0, 2) a channel, from the channel means; about 1 at the start."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The shape of ``x``."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        gate: Tensor = 2 * self.expand(F.gelu(self.squeeze(mean))).sigmoid()
        return x * gate


def conv3x3(channels: int, out_channels: int, *, separable: bool) -> nn.Module:
    """3x3 convolution without bias that keeps the size; separable: depthwise 3x3, then 1x1."""
    if not separable:
        return nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out_channels, 1, bias=False),
    )


def group_norm(channels: int) -> nn.GroupNorm:
    """Norm over a quarter of the channels of one image."""
    return nn.GroupNorm(gcd(channels, 4), channels)
