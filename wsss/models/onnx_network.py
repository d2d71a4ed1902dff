"""A network that was exported to an ONNX file (`wsss.inference.export`), run by onnxruntime on the CPU.

The file says what it is in its metadata: all values are JSON. It runs no code, yet anybody may have written it, so what
it says is checked.

Shape suffixes: B images, C = K + 1 label channels, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from wsss.config import Config, config_from_plain
from wsss.data.masks import IGNORE_INDEX
from wsss.errors import DataError, MachineError, UsageError
from wsss.models.archive import first_line, strange

IMAGES, PROBABILITIES, LABELS = "images", "probabilities", "labels"
"""Names of the input and of the outputs."""
META = ("classes", "config", "stride", "supervision", "backbone")
"""Metadata that a file must have to be used here."""
INSTALL = "pip install 'wsss[onnx]'"


@dataclass(frozen=True, slots=True)
class ExportedBackbone:
    """What a `wsss.models.network.Network` says of its backbone and is needed to feed it.

    Attributes:
        name: of the timm model.
        stride: (rows, columns) of a patch.
    """

    name: str
    stride: tuple[int, int]


class OnnxNetwork(nn.Module):
    """A segmentation network in an ONNX file; has no parameters of torch.

    Args:
        path: the file.

    Attributes:
        classes: foreground class names.
        supervision: the kinds of labels that its weights were learnt from.
        backbone: its name and stride.
        config: of its training, as far as its use needs it.
        size: (H, W) of the images it takes, or None where it takes any.

    Raises:
        MachineError: onnxruntime is not installed.
        DataError: the file cannot be read, or ``wsss export`` did not write it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._session = open_session(path)
        self.path = path
        meta = _metadata(self._session, path)
        self.classes = tuple(meta["classes"])
        self.supervision = tuple(meta["supervision"])
        self.backbone = ExportedBackbone(meta["backbone"], (meta["stride"][0], meta["stride"][1]))
        self.config: Config = meta["config"]
        height, width = self._session.get_inputs()[0].shape[1:3]
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def require_any_size(self) -> None:
        """Refuse a file for images of one size: the shape of an image is kept when it is resized.

        Raises:
            UsageError: it takes one size.
        """
        if self.size is not None:
            raise UsageError(
                f"{self.path} takes images of {self.size[0]} x {self.size[1]} (rows x columns) alone",
                "wsss export RUN --onnx FILE  # without --sizes it takes any",
            )

    def scores_on_grid(self, images_B3HW: Tensor) -> Tensor:
        """(B, C, 8h, 8w) log-probabilities of images in [0, 1], whose values are multiples of 1/255."""
        images_BHW3 = (images_B3HW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        (probabilities_BChw,) = self._session.run([PROBABILITIES], {IMAGES: images_BHW3})
        tiny = torch.finfo(torch.float32).tiny
        return torch.from_numpy(probabilities_BChw).to(images_B3HW.device).clamp_min(tiny).log()

    def labels(self, images_BHW3: Any) -> Any:
        """(B, H, W) uint8 class indices, by the file itself, of an array (B, H, W, 3) of uint8."""
        return self._session.run([LABELS], {IMAGES: images_BHW3})[0]


def open_session(model: Path | bytes) -> Any:
    """An onnxruntime session on the CPU with as many threads as torch has.

    Raises:
        MachineError: onnxruntime is not installed.
        DataError: the file cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError("onnxruntime is not installed", INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if isinstance(model, Path) and not model.is_file():
        raise DataError(f"{model}: no such file", "wsss export RUN --onnx FILE")
    try:
        content = model.read_bytes() if isinstance(model, Path) else model  # a path could refer to files beside it
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type for each kind of broken file
        what, fix = (isinstance(model, Path) and strange(model)) or (first_line(error), "wsss export RUN --onnx FILE")
        raise DataError(f"{model if isinstance(model, Path) else 'the model'}: cannot be read ({what})", fix) from error


def _metadata(session: Any, path: Path) -> dict[str, Any]:
    """The metadata of a file that ``wsss export`` wrote.

    Raises:
        DataError: it lacks some, or they do not fit the file.
    """
    refusal = DataError(f"{path}: not written by wsss export, or damaged", "wsss export RUN --onnx FILE")
    said: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    names = [one.name for one in session.get_outputs()]
    try:
        meta = {key: json.loads(said[key]) for key in META}
        meta["config"] = config_from_plain(meta["config"])
        channels = session.get_outputs()[names.index(PROBABILITIES)].shape[1]
        (images,) = session.get_inputs()
        fits = (images.name, images.type, len(images.shape)) == (IMAGES, "tensor(uint8)", 4)
    except (KeyError, ValueError, TypeError, IndexError, RecursionError, ValidationError) as error:
        raise refusal from error
    words = [meta["classes"], meta["supervision"], [meta["backbone"]]]
    if not fits or not all(isinstance(some, list) and all(isinstance(one, str) for one in some) for some in words):
        raise refusal
    stride = meta["stride"]
    if not isinstance(stride, list) or len(stride) != 2 or not all(type(n) is int and 0 < n < 1024 for n in stride):
        raise refusal
    if not 1 <= len(meta["classes"]) < IGNORE_INDEX or channels != len(meta["classes"]) + 1:
        raise refusal
    return meta
