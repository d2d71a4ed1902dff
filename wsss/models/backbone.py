"""Plain vision transformers from timm behind one interface.

Shape suffixes: B images, C channels, N patch tokens, h x w their grid, P prefix tokens, M and L
positions along an axis after and before resampling.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from wsss.errors import DataError, MachineError, UsageError
from wsss.models.archive import first_line, read_archive, read_safetensors, strange, tensors_in

HEAD_PREFIXES = ("head.", "head_dist.")
"""Keys of the ImageNet classifiers in a transformer's weights file; they are skipped, since the readout classifies."""
REEXPORT = "export it again as .safetensors or a plain state dict"
MOST_TIMES, MOST_BESIDE = 8, 2**30
"""All tensors of a weights file take at most MOST_TIMES the bytes of the weights (optimisers do) and MOST_BESIDE bytes
(classifiers)."""


class Features(NamedTuple):
    """Outputs of the transformer for a batch.

    Attributes:
        patches_BNC: final patch tokens, normalised.
        class_BC: final class token, or None where the backbone has none.
        grid: (h, w) with h * w = N.
        taps: for each requested block its patch tokens (B, C, h, w) and its class token (B, C) or None.
    """

    patches_BNC: Tensor
    class_BC: Tensor | None
    grid: tuple[int, int]
    taps: list[tuple[Tensor, Tensor | None]]


class Backbone(nn.Module):
    """A timm transformer for images of any multiple of its stride, with any number of prefix tokens.

    Args:
        name: of the timm model.
        drop_path: stochastic depth, in [0, 1].
        overrides: arguments of the model (depth, embed_dim, ...).

    Raises:
        UsageError: timm has no such model, or it is not a plain transformer with fused attention.
    """

    vit: Any
    """The timm model. Its possible classes share the attributes used here, but no base class."""
    has_attention = True
    head_prefixes: tuple[str, ...] = HEAD_PREFIXES

    def __init__(self, name: str, *, drop_path: float = 0.0, overrides: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.vit = _create(name, drop_path, overrides or {})
        stride = self.vit.patch_embed.feat_ratio(as_scalar=False)
        self.name = name
        self.stride: tuple[int, int] = (int(stride[0]), int(stride[1]))
        self.embed_dim = int(self.vit.embed_dim)
        self.depth = len(self.blocks)
        self.num_prefix_tokens = int(self.vit.num_prefix_tokens)
        self.num_heads = int(self.vit.blocks[0].attn.num_heads)
        self.has_class_token = getattr(self.vit, "cls_token", None) is not None
        # Average-pooling transformers normalise after pooling; here each token is normalised instead.
        self.final_norm: nn.Module = self.vit.fc_norm if isinstance(self.vit.norm, nn.Identity) else nn.Identity()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The parts that run one after the other, each on what the one before returned."""
        blocks: Sequence[nn.Module] = self.vit.blocks
        return blocks

    @property
    def norms(self) -> dict[str, nn.Module]:
        """What follows the last block, by name."""
        return {"norm": self.vit.norm, "final_norm": self.final_norm}

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation of the pretraining, for images in [0, 1]."""
        cfg = self.vit.pretrained_cfg
        return tuple(cfg["mean"]), tuple(cfg["std"])

    @property
    def gradcam_layer(self) -> nn.Module:
        """The last layer whose patch tokens still influence the class token: grad-CAM reads its output."""
        layer: nn.Module = self.vit.blocks[-1].norm1
        return layer

    def forward(self, images_B3HW: Tensor, taps: Sequence[int] = ()) -> Features:
        """Tokens of normalised images.

        Args:
            images_B3HW: H and W are multiples of the stride.
            taps: indices of the blocks whose tokens the decoder reads.
        """
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
            grid=(height, width),
            taps=[pairs[layers.index(layer)] for layer in taps],
        )

    def as_last(self, tokens_BNC: Tensor, grid: tuple[int, int]) -> Features:
        """Features as if these tokens, prefix tokens first, were what the last block returned; no taps."""
        tokens_BNC = self.final_norm(self.vit.norm(tokens_BNC))
        return Features(
            patches_BNC=tokens_BNC[:, self.num_prefix_tokens :],
            class_BC=tokens_BNC[:, 0] if self.has_class_token else None,
            grid=grid,
            taps=[],
        )

    def load(self, weights: str) -> None:
        """Load the weights of a file, or of timm's hub ("pretrained"); every key but the classifier's must match.

        Raises:
            DataError: the file does not fit; names the first differing keys.
            MachineError: the hub cannot be reached.
        """
        if weights == "pretrained":
            state = _download(self.name)
            self._check(weights, state)
        else:
            state = read_weights(Path(weights), lambda state: self._check(weights, state))
        self.vit.load_state_dict(_without_head(state, self.head_prefixes))

    def _check(self, weights: str, state: Mapping[str, Tensor]) -> None:
        """Refuse a state dict that does not fit."""
        problem = difference(self.vit.state_dict(), _without_head(state, self.head_prefixes))
        if problem:
            raise DataError(
                f"{weights} does not fit the backbone {self.name}: {problem}",
                "wsss train-cls --backbone NAME  # the timm model these weights belong to",
            )

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that timm exempts from weight decay: position embeddings and class tokens."""
        names = self.vit.no_weight_decay() if hasattr(self.vit, "no_weight_decay") else ()
        return {f"vit.{name}" for name in names}


class PositionsByMatrix:
    """Mix-in for timm's models: resamples position embeddings to another grid by products of matrices.

    Antialiased bicubic interpolation is linear in each axis, so a matrix for each axis does the same. The gradient of a
    matrix product is deterministic; torch has no deterministic gradient of the interpolation on CUDA.
    """

    def _pos_embed(self, tokens_BhwC: Tensor) -> Any:
        with _InterpolatesByMatrix():
            return super()._pos_embed(tokens_BhwC)  # type: ignore[misc]


class _InterpolatesByMatrix(TorchFunctionMode):
    """Replaces the ``F.interpolate`` call in timm's ``_pos_embed``; off while torch.compile or export traces."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.interpolate or torch.compiler.is_compiling():
            return func(*args, **kwargs)
        return resample_bicubic(args[0], kwargs["size"])


def resample_bicubic(maps_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    """``F.interpolate(maps, size, mode="bicubic", antialias=True)`` of float32 maps, under autocast too."""
    (height, width), device = maps_BChw.shape[2:], maps_BChw.device
    with torch.autocast(device.type, enabled=False):
        return _bicubic(height, size[0], device) @ maps_BChw @ _bicubic(width, size[1], device).T


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _bicubic(old: int, new: int, device: torch.device) -> Tensor:
    """The matrix (M, L) that resamples an axis from ``old`` to ``new`` positions: the interpolated unit vectors."""
    identity_11LL = torch.eye(old, device="cpu")[None, None]
    matrix_ML = F.interpolate(identity_11LL, size=(new, old), mode="bicubic", antialias=True)[0, 0]
    return matrix_ML.to(device, non_blocking=True)


def plain_transformers(pattern: str = "*") -> list[str]:
    """Names of the timm models from which class maps can be read, matching a shell pattern."""
    names = timm.list_models(["vit_*", "deit*", "eva*", "beit3*"])
    odd = ("relpos", "srelpos", "deit3_xl", "vit_relpos", "eva02_enormous", "dlittle")
    return [name for name in names if fnmatch(name, pattern) and not any(part in name for part in odd)]


def read_weights(path: Path, check: Callable[[Mapping[str, Tensor]], None] | None = None) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors or .pth file; nothing in the file is executed.

    Args:
        path: the file.
        check: called with the tensors before their numbers are read; raises where their shapes do not fit.

    Raises:
        DataError: the file is missing, broken, or holds no tensors by name.
    """
    if not path.is_file():
        if (path / "run.json").is_file():
            raise DataError(
                f"{path}: a run, and no file of weights", f"train-seg --init {path}  # continues from a run"
            )
        raise DataError(f"{path}: no such weights file", "wsss train-cls --weights FILE|pretrained|none")

    def check_all(content: Any) -> None:
        state = _state_dict(content, path)
        if check is not None:
            check(state)
        total = sum(tensor.nbytes for tensor in tensors_in(content))
        if total > MOST_BESIDE + MOST_TIMES * sum(tensor.nbytes for tensor in _without_head(state).values()):
            raise DataError(f"{path}: {total} bytes of tensors, most of them no weights", REEXPORT)

    try:
        read = read_safetensors if path.suffix == ".safetensors" else read_archive
        return _state_dict(read(path, check_all), path)
    except DataError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        what, fix = strange(path) or (first_line(error), REEXPORT)
        raise DataError(f"{path}: cannot be read as weights ({what})", fix) from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name in the content of a file, perhaps under "state_dict" or "model"."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    names = isinstance(content, dict) and all(isinstance(key, str) for key in content)
    if not names or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path}: holds no plain state dict", REEXPORT)
    return {**content}


def _without_head(state: Mapping[str, Tensor], prefixes: tuple[str, ...] = HEAD_PREFIXES) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def _create(name: str, drop_path: float, overrides: Mapping[str, int]) -> Any:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models("*vit*") + timm.list_models("*deit*"), n=3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise UsageError(f"--backbone {name}: timm has no such model{hint}", "wsss backbones")
    strange = sorted(overrides.keys() & inspect.signature(timm.create_model).parameters.keys())
    if strange:  # arguments of timm's factory, some of which fetch or open files
        raise UsageError(f"model.vit: '{strange[0]}' is no argument of a transformer", f"--set model.vit.{strange[0]}=")
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
    vit.__class__ = type(type(vit).__name__, (PositionsByMatrix, type(vit)), {})
    return vit


def _download(name: str) -> dict[str, Tensor]:
    try:
        pretrained: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # no network, no such weights, hub errors of many kinds
        raise MachineError(
            f"the pretrained weights of {name} could not be downloaded ({first_line(error)})",
            "wsss train-cls --weights FILE  # or --weights none to start from scratch",
        ) from error
    return pretrained.state_dict()


def difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], most: int = 3) -> str:
    """The first keys in which two state dicts differ, by name or by shape; an empty string where none does."""
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
