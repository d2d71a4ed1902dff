"""Plain vision transformers from timm behind one small face.

Shape suffixes: B images, C channels, N patch tokens, h x w their grid, P prefix tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from wsss.errors import DataError, MachineError, UsageError

HEAD_PREFIXES = ("head.", "head_dist.")
"""ImageNet classifiers that a weights file may carry; our readout takes their place."""


class Features(NamedTuple):
    """What the transformer says of a batch.

    Attributes:
        patches_BNC: final patch tokens, normalised.
        class_BC: final class token, or None where the backbone has none.
        grid: (h, w) with h * w = N.
        taps: per block asked for, its patch tokens as (B, C, h, w) and its class token (B, C) or None.
    """

    patches_BNC: Tensor
    class_BC: Tensor | None
    grid: tuple[int, int]
    taps: list[tuple[Tensor, Tensor | None]]


class Backbone(nn.Module):
    """A timm transformer: any size that is a multiple of its stride, any number of prefix tokens."""

    vit: Any
    """A timm model; its classes share these attributes, but no type."""

    def __init__(self, name: str, *, drop_path: float = 0.0, overrides: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.vit = _create(name, drop_path, overrides or {})
        stride = self.vit.patch_embed.feat_ratio(as_scalar=False)
        self.name = name
        self.stride: tuple[int, int] = (int(stride[0]), int(stride[1]))
        self.embed_dim = int(self.vit.embed_dim)
        self.depth = len(self.vit.blocks)
        self.num_prefix_tokens = int(self.vit.num_prefix_tokens)
        self.has_class_token = getattr(self.vit, "cls_token", None) is not None
        # Average-pooling transformers normalise after the pool; we normalise each token instead.
        self.final_norm: nn.Module = self.vit.fc_norm if isinstance(self.vit.norm, nn.Identity) else nn.Identity()

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel normalisation the weights were trained with, for images in [0, 1]."""
        cfg = self.vit.pretrained_cfg
        return tuple(cfg["mean"]), tuple(cfg["std"])

    @property
    def gradcam_layer(self) -> nn.Module:
        """Its output is the last place where patch tokens still influence the class token."""
        layer: nn.Module = self.vit.blocks[-1].norm1
        return layer

    def forward(self, images_B3HW: Tensor, taps: Sequence[int] = ()) -> Features:
        """Tokens of normalised images; ``taps`` are indices of blocks."""
        layers = sorted({*taps, self.depth - 1})
        tokens, intermediates = self.vit.forward_intermediates(images_B3HW, indices=layers, return_prefix_tokens=True)
        tokens = self.final_norm(tokens)
        if self.num_prefix_tokens:
            pairs = [(patches, prefix[:, 0] if self.has_class_token else None) for patches, prefix in intermediates]
        else:
            pairs = [(patches, None) for patches in intermediates]
        height, width = pairs[-1][0].shape[-2:]
        return Features(
            patches_BNC=tokens[:, self.num_prefix_tokens :],
            class_BC=tokens[:, 0] if self.has_class_token else None,
            grid=(int(height), int(width)),
            taps=[pairs[layers.index(layer)] for layer in taps],
        )

    def load(self, weights: str) -> None:
        """Fill the transformer from a file, strictly, or from timm's hub ("pretrained").

        Raises:
            DataError: the file does not fit; names the first differing keys.
            MachineError: the hub cannot be reached.
        """
        state = _download(self.name) if weights == "pretrained" else read_weights(Path(weights))
        state = {key: value for key, value in state.items() if not key.startswith(HEAD_PREFIXES)}
        problem = _difference(self.vit.state_dict(), state)
        if problem:
            raise DataError(
                f"{weights} does not fit the backbone {self.name}: {problem}",
                "wsss train-cls --backbone NAME  # the timm model these weights belong to",
            )
        self.vit.load_state_dict(state)


def plain_transformers(pattern: str = "*") -> list[str]:
    """Names of timm's models that class maps can be read from, matching a shell pattern."""
    names = timm.list_models(["vit_*", "deit*", "eva*", "beit3*"])
    odd = ("relpos", "srelpos", "deit3_xl", "vit_relpos", "eva02_enormous")
    return [name for name in names if fnmatch(name, pattern) and not any(part in name for part in odd)]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file; nothing in the file is executed."""
    if not path.is_file():
        raise DataError(f"{path}: no such weights file", "wsss train-cls --weights FILE|pretrained|none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as weights ({reason})",
            "export it again as .safetensors or a plain state dict",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"{path}: holds no plain state dict", "export it again as .safetensors")
    return loaded


def _create(name: str, drop_path: float, overrides: Mapping[str, int]) -> Any:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models("*vit*") + timm.list_models("*deit*"), n=3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise UsageError(f"--backbone {name}: timm has no such model{hint}", "wsss backbones")
    try:
        options: dict[str, Any] = {"dynamic_img_size": True, "drop_path_rate": drop_path, **overrides}
        vit: Any = timm.create_model(name, num_classes=0, **options)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        asked = f" with model.vit {dict(overrides)}" if overrides else ""
        raise UsageError(
            f"--backbone {name}{asked}: not a plain vision transformer ({error})", "wsss backbones"
        ) from error
    parts = ("blocks", "patch_embed", "num_prefix_tokens", "forward_intermediates")
    fused = hasattr(vit, "blocks") and all(
        getattr(getattr(block, "attn", None), "fused_attn", False) for block in vit.blocks
    )
    if not fused or not all(hasattr(vit, part) for part in parts):
        raise UsageError(
            f"--backbone {name}: not a plain vision transformer with fused attention, which class maps are read from",
            "wsss backbones",
        )
    return vit


def _download(name: str) -> dict[str, Tensor]:
    try:
        pretrained: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # no network, no such weights, hub errors of many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MachineError(
            f"the pretrained weights of {name} could not be downloaded ({reason})",
            "wsss train-cls --weights FILE  # or --weights none to start from scratch",
        ) from error
    return pretrained.state_dict()


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], most: int = 3) -> str:
    """The first keys in which two state dicts differ, or an empty string."""
    missing = [key for key in ours if key not in theirs]
    extra = [key for key in theirs if key not in ours]
    shapes = [
        f"{key} is {tuple(theirs[key].shape)}, expected {tuple(ours[key].shape)}"
        for key in ours
        if key in theirs and ours[key].shape != theirs[key].shape
    ]
    parts = [
        f"{label} {', '.join(keys[:most])}{f' and {len(keys) - most} more' if len(keys) > most else ''}"
        for label, keys in (("missing", missing), ("unexpected", extra), ("shape:", shapes))
        if keys
    ]
    return "; ".join(parts)
