"""ConvNeXt, EfficientNet and ResNet behind the backbone's face: the baseline without attention for class maps.

The final map takes the place of the patch tokens: one patch is as large as the network's stride. There is no class
token, so the readout is "pool", and class maps are CAM or grad-CAM (the two are equal, but for the head's constant
factor and grad-CAM's ReLU, where nothing follows the final map but the pool and a linear head).

Shape suffixes: B images, C channels, N patches, h x w their grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn

from wsss.errors import UsageError
from wsss.models.backbone import Backbone, Features

FAMILIES = ("convnext", "efficientnet", "resnet")
"""Modules of timm whose models can be built; all reduce images by 32 and end in a pool."""
HEADS = ("classifier.", "fc.", "head.fc.", "head.pre_logits.")
"""Keys of the ImageNet classifiers of these families in a weights file."""


class Convolution(Backbone):
    """A ConvNeXt, EfficientNet or ResNet of timm for images of any multiple of its stride.

    Args: as those of ``Backbone``; ``overrides`` are arguments of the timm model that are whole numbers.

    Raises:
        UsageError: the arguments do not fit the model.
    """

    has_attention = False
    head_prefixes = HEADS

    def __init__(self, name: str, *, drop_path: float = 0.0, overrides: Mapping[str, int] | None = None) -> None:
        nn.Module.__init__(self)
        options: dict[str, Any] = {"drop_path_rate": drop_path, **(overrides or {})}
        try:
            vit: Any = timm.create_model(name, num_classes=0, **options)
        except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
            asked = f" with model.vit {dict(overrides)}" if overrides else ""
            raise UsageError(f"--backbone {name}{asked}: cannot be built ({error})", "wsss backbones") from error
        reduction = int(vit.feature_info[-1]["reduction"])
        self.vit = vit
        self.name = name
        self.stride = (reduction, reduction)
        self.depth = len(self.blocks)
        self.num_prefix_tokens = self.num_heads = 0
        self.has_class_token = False
        self.embed_dim = int(vit.num_features)
        self.gradcam_tokens = AsTokens()
        head: Any = getattr(vit, "head", None)
        if hasattr(head, "pre_logits"):
            head.pre_logits = nn.Identity()
        # ConvNeXt normalises after pooling; here each place is normalised instead, as for transformers.
        self.final_norm = getattr(head, "norm", nn.Identity())

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The stages: four, or seven of an EfficientNet."""
        vit = self.vit
        if hasattr(vit, "layer1"):
            return (vit.layer1, vit.layer2, vit.layer3, vit.layer4)
        stages: Sequence[nn.Module] = vit.stages if hasattr(vit, "stages") else vit.blocks
        return stages

    @property
    def norms(self) -> dict[str, nn.Module]:
        """What follows the last stage, by name."""
        last = {name: getattr(self.vit, name) for name in ("norm_pre", "conv_head", "bn2") if hasattr(self.vit, name)}
        return {**last, "final_norm": self.final_norm}

    @property
    def gradcam_layer(self) -> nn.Module:
        """Its output is the final map as tokens, before a last norm: what grad-CAM was published for."""
        return self.gradcam_tokens

    def forward(self, images_B3HW: Tensor, taps: Sequence[int] = ()) -> Features:
        """The final map of normalised images as patches; H and W are multiples of the stride. No stage is tapped."""
        map_BChw: Tensor = self.vit.forward_features(images_B3HW)
        grid = (map_BChw.shape[2], map_BChw.shape[3])
        tokens_BNC = self.gradcam_tokens(map_BChw)
        normed_BChw = self.final_norm(tokens_BNC.transpose(1, 2).unflatten(2, grid))
        return Features(normed_BChw.flatten(2).transpose(1, 2), None, grid, [])

    def train(self, mode: bool = True) -> Convolution:
        """As for any module, but a BatchNorm whose weights are frozen keeps its statistics."""
        super().train(mode)
        for module in batch_norms(self):
            if not module.weight.requires_grad:
                module.eval()
        return self


class AsTokens(nn.Module):
    """Makes a map (B, C, h, w) patches (B, N, C), row by row."""

    def forward(self, map_BChw: Tensor) -> Tensor:
        """The patches."""
        return map_BChw.flatten(2).transpose(1, 2)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The modules inside that compute statistics over a batch in training, with weights of their own."""
    kind = torch.nn.modules.batchnorm._BatchNorm
    return [one for one in module.modules() if isinstance(one, kind) and one.weight is not None]


def convolution_networks(pattern: str = "*") -> list[str]:
    """Names of the timm models of ``FAMILIES``, matching a shell pattern."""
    names = [name for family in FAMILIES for name in timm.list_models(module=family)]
    return [name for name in names if fnmatch(name, pattern) and not name.startswith("test_")]


def is_convolution(name: str) -> bool:
    """Whether a name, perhaps with a tag of weights after a dot, is that of a model of ``FAMILIES``."""
    return is_model_in_modules(name.partition(".")[0], FAMILIES)
