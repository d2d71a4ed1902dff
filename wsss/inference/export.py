"""Export a segmentation network: ONNX (float32 or 8-bit weights), torch.export, safetensors.

An exported model takes photos as they are, (B, H, W, 3) uint8 RGB, and gives class probabilities on the decoder's grid
and the label map. Tracing keeps the conditions under which it is right to itself, so a model that froze a size would
give wrong labels at other sizes without an error. Every model is therefore compared with torch, at sizes that are not
those of its example, before its file appears.

Shape suffixes: B images, C = K + 1 label channels, H x W pixels, h x w grid of the decoder, 3 RGB.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as encode_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

import wsss
from wsss.config import Config
from wsss.errors import MachineError, UsageError
from wsss.models.archive import first_line
from wsss.models.checkpoint import shared_content
from wsss.models.network import Network
from wsss.models.onnx_network import IMAGES, INSTALL, LABELS, PROBABILITIES, open_session

OPSET = 18
"""Version of the ONNX operators; onnxruntime has them since 1.14."""
LARGEST_SIDE, LARGEST_BATCH = 2**14, 2**10
"""Bounds that tracing assumes; nothing enforces them."""
TOLERANCE = 1e-3
"""Largest difference of a probability from torch's, in float32; measured ones are about 1e-5."""
MOST_DIFFERING = 1e-3
"""Largest share of pixels whose label may differ in float32: two classes of nearly equal probability."""
ROUNDS = 5
"""Timed calls of each model."""

Size = tuple[int, int]
Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.uint8]]]
"""From (B, H, W, 3) uint8 to probabilities (B, C, h, w) and labels (B, H, W)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A model that was written, compared with torch.

    Attributes:
        path: its file.
        kind: "onnx", "onnx int8", "pt2" or "safetensors".
        bytes: length of the file.
        sizes: (H, W) at which it was compared; empty where only weights were written.
        difference: largest difference of a probability.
        differing: largest share of pixels of one of these sizes that got another label.
        milliseconds: median time of one image of the first of these sizes.
        torch_milliseconds: torch's time for it.
    """

    path: Path
    kind: str
    bytes: int
    sizes: tuple[Size, ...] = ()
    difference: float = 0.0
    differing: float = 0.0
    milliseconds: float = 0.0
    torch_milliseconds: float = 0.0

    def words(self) -> str:
        """In one line."""
        said = f"{self.path}: {self.kind}, {self.bytes / 1e6:.1f} MB"
        if not self.sizes:
            return said
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        return (
            f"{said}; compared with torch at {sizes}: probabilities differ by at most {self.difference:.1e},"
            f" labels of {100 * self.differing:.2f} % of the pixels; {self.milliseconds:.0f} ms an image here,"
            f" torch {self.torch_milliseconds:.0f} ms"
        )


class ExportedModel(nn.Module):
    """What is exported: from photos to probabilities and labels.

    It differs from `Network` in two points that hold for every size: it pads always, if only by nothing, and takes the
    size of the padded image from the image instead of from the grid of patches.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        if network.edits:
            names = ", ".join(type(edit).__name__ for edit in network.edits)
            raise UsageError(
                f"its attention is edited ({names}), which an exported model does not do",
                "wsss train-seg --data DIR -o RUN  # without model.attention",
            )
        self.network = network
        self.decoder = network.require_decoder()

    def forward(self, images_BHW3: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, C, h, w) on the decoder's grid and labels (B, H, W) uint8 of uint8 photos."""
        height, width = images_BHW3.shape[1:3]
        rows, columns = self.network.backbone.stride
        x = (images_BHW3.permute(0, 3, 1, 2).float() / 255 - self.network.mean) / self.network.std
        x = F.pad(x, (0, -width % columns, 0, -height % rows))
        scores_BChw = self.decoder(self.network.backbone(x, self.network.taps).taps)
        scores_BCHW = F.interpolate(scores_BChw, size=x.shape[2:], mode="bilinear", align_corners=False)
        labels_BHW = scores_BCHW[:, :, :height, :width].argmax(dim=1).to(torch.uint8)
        return scores_BChw.softmax(dim=1), labels_BHW


def export_onnx(
    network: Network,
    config: Config,
    path: Path,
    *,
    size: Size | None = None,
    int8: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Exported:
    """Write an ONNX file; batches of any number, images of any size unless one is given.

    With ``int8`` the weights of the matrix products are stored in 8 bits, a scale a channel, and their inputs are
    rounded while it runs (``quantize_dynamic``); convolutions, which this would slow down, stay as they are.

    Args:
        network: with a decoder, in ``eval`` mode, on the CPU.
        config: of its training.
        path: the file, replaced where it exists.
        size: the only (H, W) that it takes.
        int8: see above.
        facts: further metadata, plain values.

    Raises:
        UsageError: the network has no decoder, or its positions do not follow the size of the image.
        MachineError: onnx, onnxscript or onnxruntime is not installed, or the model differs from torch.
        DiskError: the file cannot be written.
    """
    require_onnx()
    import onnx

    module = ExportedModel(network).eval()
    batch: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}
    rows, columns = network.backbone.stride
    if size is None:
        batch[1] = torch.export.Dim("height", min=rows, max=LARGEST_SIDE)
        batch[2] = torch.export.Dim("width", min=columns, max=LARGEST_SIDE)
    example = torch.zeros(2, *(size or (4 * rows, 5 * columns)), 3, dtype=torch.uint8)  # one image would be a constant
    with _tracing(network):
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=[IMAGES],
            output_names=[PROBABILITIES, LABELS],
            dynamic_shapes=(batch,),
        )
    assert program is not None
    model = _quantised(program.model_proto) if int8 else program.model_proto
    kept = shared_content(network, config) | {
        "stride": [rows, columns],
        "backbone": network.backbone.name,
        "wsss": wsss.__version__,
        "weights": "int8" if int8 else "float32",
        **(facts or {}),
    }
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in kept.items()})
    content = model.SerializeToString()
    session = open_session(content)

    def run(images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        probabilities_BChw, labels_BHW = session.run([PROBABILITIES, LABELS], {IMAGES: images_BHW3})
        return probabilities_BChw, labels_BHW

    sizes = (size,) if size else check_sizes(network, config.augment.size)
    return _written(path, content, "onnx int8" if int8 else "onnx", module, run, sizes, exact=not int8)


def export_pt2(network: Network, path: Path, size: Size) -> Exported:
    """Write the file of ``torch.export`` for images of one size, in batches of any number; see `export_onnx`."""
    module = ExportedModel(network).eval()
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with _tracing(network):
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        traced = torch.export.load(io.BytesIO(buffer.getvalue())).module()

    def run(images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        probabilities_BChw, labels_BHW = traced(torch.from_numpy(images_BHW3))
        return probabilities_BChw.numpy(), labels_BHW.numpy()

    return _written(path, buffer.getvalue(), "pt2", module, run, (size,), exact=True)


def export_safetensors(network: Network, config: Config, path: Path) -> Exported:
    """Write the weights, with all that `wsss.models.checkpoint.load_network` needs, as safetensors.

    Raises:
        DiskError: the file cannot be written.
    """
    from wsss.files import write_whole

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    said = {key: json.dumps(value) for key, value in shared_content(network, config).items()}
    content = encode_safetensors(tensors, said)
    write_whole(path, content)
    return Exported(path=path, kind="safetensors", bytes=len(content))


def require_onnx() -> None:
    """Refuse to export where a package is missing.

    Raises:
        MachineError: it is.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise MachineError(f"{name} is not installed, which --onnx needs", INSTALL) from error


def check_sizes(network: Network, side: int) -> tuple[Size, ...]:
    """Sizes at which a model for any size is compared: that of the crops, a wide one, and one that is not in patches.

    None of them is that of the example.
    """
    rows, columns = network.backbone.stride
    return (
        (-(-side // rows) * rows, -(-side // columns) * columns),
        (2 * rows, 7 * columns),
        (round(0.9 * side) // rows * rows + 1, round(1.43 * side) // columns * columns + 3),
    )


def compared(module: nn.Module, run: Run, sizes: Sequence[Size]) -> tuple[float, float]:
    """Largest difference of a probability from torch's, and largest share of differing labels, over sizes and batches.

    Raises:
        MachineError: the model does not run at one of the sizes, or its outputs have another shape.
    """
    difference, differing = 0.0, 0.0
    for size in sizes:
        for count in (1, 3):
            images_BHW3 = pattern(count, size)
            with torch.inference_mode():
                ours_BChw, ours_BHW = module(torch.from_numpy(images_BHW3))
            try:
                theirs_BChw, theirs_BHW = run(images_BHW3)
            except Exception as error:  # runtimes have a type for each kind of wrong shape
                raise _frozen(size, first_line(error)) from error
            if theirs_BChw.shape != ours_BChw.shape or theirs_BHW.shape != ours_BHW.shape:
                raise _frozen(size, f"labels of shape {theirs_BHW.shape}")
            difference = max(difference, float(np.abs(theirs_BChw - ours_BChw.numpy()).max()))
            differing = max(differing, float(np.mean(theirs_BHW != ours_BHW.numpy())))
    return difference, differing


def pattern(count: int, size: Size) -> NDArray[np.uint8]:
    """(B, H, W, 3) uint8: smooth colours with some noise, always the same for a size."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 6, generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _written(
    path: Path, content: bytes, kind: str, module: nn.Module, run: Run, sizes: Sequence[Size], *, exact: bool
) -> Exported:
    """Compare a model with torch, then write it.

    Raises:
        MachineError: it differs; only the shapes are compared where it is not ``exact``.
    """
    from wsss.files import write_whole

    difference, differing = compared(module, run, sizes)
    if exact and (difference > TOLERANCE or differing > MOST_DIFFERING):
        at = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise MachineError(
            f"{path} is not written: its probabilities differ from torch's by up to {difference:.2g} and the labels of"
            f" {100 * differing:.2g} % of the pixels, at one of {at}",
            "wsss export RUN --onnx FILE --sizes 224x224  # a model for one size",
        )
    write_whole(path, content)
    one_1HW3 = pattern(1, sizes[0])
    with torch.inference_mode():
        ours = _milliseconds(lambda: module(torch.from_numpy(one_1HW3)))
        theirs = _milliseconds(lambda: run(one_1HW3))
    return Exported(
        path=path,
        kind=kind,
        bytes=len(content),
        sizes=tuple(sizes),
        difference=difference,
        differing=differing,
        milliseconds=theirs,
        torch_milliseconds=ours,
    )


def _milliseconds(call: Callable[[], Any]) -> float:
    """Median time of a call that was made before."""
    call()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def _quantised(model: Any) -> Any:
    """The model with 8-bit weights of its matrix products.

    They use 7 of the 8 bits (``reduce_range``): sums of products of 8 bits overflow on processors without VNNI, and the
    labels would depend on the machine.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, ready, small = (Path(folder, f"{name}.onnx") for name in ("whole", "ready", "small"))
        onnx.save(model, whole)
        quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
        quantize_dynamic(
            ready,
            small,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        return onnx.load(small)


def _frozen(size: Size, what: str) -> UsageError:
    return UsageError(
        f"the exported model does not run at {size[0]} x {size[1]} (rows x columns), although torch does: {what}",
        "wsss export RUN --onnx FILE --sizes 224x224  # a model for one size",
    )


@contextmanager
def _tracing(network: Network) -> Any:
    """Silence torch's exporter, whose warnings concern its own workings; its errors become a UsageError."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # torch has many kinds
        what = f"torch cannot export {network.backbone.name} ({first_line(error)})"
        raise UsageError(what, "wsss export RUN --safetensors FILE  # the weights alone") from error
    finally:
        logging.disable(before)
