"""Class maps of wsss beside those of the packages grad-cam and torchcam: one network, the same images.

    python examples/compare_maps.py RUN --data DIR -o OUT

RUN is a classifier (``wsss train-cls``) of a plain vision transformer. Every map is read at one scale, without flip,
refinement or spreading, laid over the image, cut below 0 and divided by its maximum, class by class. The threshold
between class and background is the best one on images of ``--choose``; mIoU is scored with it on those of ``--score``.
Masks are opened for these two figures alone. OUT gets ``maps.json`` and a sheet of pictures, ``maps.jpg``.

The packages are optional. What is not installed is left out, and a line says how to install it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

import wsss
from wsss.config import Config
from wsss.data.records import Record
from wsss.data.scaled import resize, scaled_size
from wsss.evaluation.confusion import ThresholdSweep
from wsss.files import write_whole
from wsss.inference.settings import map_scales
from wsss.inference.showing import heat
from wsss.maps.generate import read_maps
from wsss.maps.recorder import MapSettings
from wsss.models.network import Network
from wsss.outputs.pictures import contact_sheet, overlay, write_jpeg
from wsss.sections import Method

Maps = Callable[[Tensor, list[int]], NDArray[np.float32]]
"""An image (1, 3, H, W) in [0, 1] and class indices from 0, to one map (h, w) a class, of any size: (R, h, w)."""

OURS: tuple[Method, ...] = ("attention-gradient", "getam", "chefer", "gradcam")
THRESHOLDS = tuple((step / 100) ** 2 for step in range(100))
"""Dense near 0: products of attention and gradient are near 0 almost everywhere."""
TILE, COLUMNS = 180, 4
"""Width of a picture on the sheet, pixels, and pictures in a row."""
HOW = {
    "pytorch_grad_cam": "grad-cam: pip install --no-deps grad-cam ttach; pip install matplotlib scikit-learn",
    "torchcam": "torchcam: pip install --no-deps torchcam; pip install matplotlib",
}
"""How a package is installed. With its dependencies grad-cam brings a second OpenCV, which overwrites that of wsss."""


class Logits(nn.Module):
    """Image to logits, as these packages want a network; the patch tokens pass ``grid`` as a map (B, C, h, w).

    They are those of the layer that our own grad-CAM reads, the last that still influences the class token.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.grid = network, nn.Identity()
        self.rows = 1
        network.backbone.gradcam_layer.register_forward_hook(self._through_grid)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """(B, K)."""
        self.rows = images_B3HW.shape[2] // self.network.backbone.stride[0]
        logits_BK: Tensor = self.network.classify(images_B3HW)
        return logits_BK

    def _through_grid(self, module: nn.Module, inputs: object, tokens_BNC: Tensor) -> Tensor:
        first = self.network.backbone.num_prefix_tokens
        map_BChw = tokens_BNC[:, first:].transpose(1, 2)
        map_BChw = map_BChw.reshape(*map_BChw.shape[:2], self.rows, -1)
        return torch.cat([tokens_BNC[:, :first], self.grid(map_BChw).flatten(2).transpose(1, 2)], 1)


def our_maps(network: Network, settings: MapSettings) -> Maps:
    """All classes of an image in one forward, as `wsss make-pseudo` reads them."""

    def maps(image_13HW: Tensor, wanted: list[int]) -> NDArray[np.float32]:
        present_BK = torch.tensor([[k in wanted for k in range(len(network.classes))]])
        return read_maps(network, image_13HW, present_BK, settings)[1][0, wanted].numpy()

    return maps


def grad_cam_maps(network: Network, name: str) -> Maps:
    """A class of the package grad-cam, called once a class, as it does."""
    package: Any = importlib.import_module("pytorch_grad_cam")
    target: Any = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    model = Logits(network)
    reader = getattr(package, name)(model=model, target_layers=[model.grid])

    def maps(image_13HW: Tensor, wanted: list[int]) -> NDArray[np.float32]:
        return np.stack([reader(input_tensor=image_13HW, targets=[target(k)])[0] for k in wanted])

    return maps


def torchcam_maps(network: Network, name: str) -> Maps:
    """A class of the package torchcam, called once a class."""
    methods: Any = importlib.import_module("torchcam.methods")
    model = Logits(network)
    reader = getattr(methods, name)(model, target_layer=model.grid)

    def maps(image_13HW: Tensor, wanted: list[int]) -> NDArray[np.float32]:
        with torch.enable_grad():
            return np.stack([reader(k, model(image_13HW))[0][0].detach().numpy() for k in wanted])

    return maps


def rivals(run: Path) -> tuple[Config, dict[str, Maps]]:
    """The run's config and every way to read maps that is installed, each with a network of its own."""

    def network() -> Network:
        return wsss.Labeller.load(run, device="cpu").network

    config = wsss.Labeller.load(run, device="cpu").config
    found: dict[str, Maps] = {}
    for method in OURS:
        settings = replace(MapSettings.of(config.maps), method=method, gamma=1.0, spread=0)
        found[f"wsss {method}"] = our_maps(network(), settings)
    packages = (("pytorch_grad_cam", "grad-cam", grad_cam_maps), ("torchcam", "torchcam", torchcam_maps))
    for module, package, reader in packages:
        if importlib.util.find_spec(module) is None:
            print(f"left out, not installed: {HOW[module]}")
            continue
        for name in ("GradCAM", "GradCAMPlusPlus" if module == "pytorch_grad_cam" else "GradCAMpp", "LayerCAM"):
            found[f"{package} {name}"] = reader(network(), name)
    return config, found


def scores(maps_Rhw: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Maps at image size, cut below 0 and divided by their maximum: (R, H, W) in [0, 1]."""
    large_RHW = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in maps_Rhw])
    large_RHW = np.nan_to_num(large_RHW).clip(0, None).astype(np.float32)
    peak_R11 = large_RHW.max(axis=(1, 2), keepdims=True)
    return np.asarray(large_RHW / np.maximum(peak_R11, np.finfo(np.float32).tiny), dtype=np.float32)


def read(record: Record, maps: Maps, config: Config, stride: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """Class scores (R, H, W) of an image by one way, and the CPU seconds that its maps took."""
    image = torch.from_numpy(record.decode())
    size = (image.shape[0], image.shape[1])
    scaled = resize(image, scaled_size(*size, map_scales(config)[0], stride))[None].float() / 255
    began = time.process_time()
    found_Rhw = maps(scaled, list(record.tags))
    return scores(found_Rhw, size), time.process_time() - began


def main(
    run: Annotated[Path, typer.Argument(help="Run of train-cls.")],
    data: Annotated[Path, typer.Option(help="Data folder with masks.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    choose: Annotated[str, typer.Option(help="Split whose masks choose the thresholds.")] = "train",
    score: Annotated[str, typer.Option(help="Split that is scored.")] = "val",
    limit: Annotated[int, typer.Option(min=1, help="Images of each split, at most.")] = 100,
    images: Annotated[int, typer.Option(min=1, help="Images on the sheet.")] = 2,
) -> None:
    """Print a table: mIoU of the seeds, threshold, CPU time an image."""
    config, ways = rivals(run)
    opened = wsss.open_dataset(data)
    stride = wsss.Labeller.load(run, device="cpu").network.backbone.stride

    def some(split: str) -> list[tuple[Record, NDArray[np.uint8]]]:
        pairs = ((record, opened.truth(record, split)) for record in opened.records(split) if record.tags)
        return [(record, truth_HW) for record, truth_HW in pairs if truth_HW is not None][:limit]

    several = sorted(some(score), key=lambda pair: -len(pair[0].tags))[:images]
    tiles = {
        record.name: [
            (f"image, maps of {opened.classes[record.tags[0]]}", record.decode()),
            ("truth", overlay(record.decode(), truth_HW)),
        ]
        for record, truth_HW in several
    }
    table: list[dict[str, Any]] = []
    for way, maps in ways.items():
        sweeps: dict[str, ThresholdSweep] = {}
        seconds: list[float] = []
        for split in dict.fromkeys((choose, score)):
            sweeps[split] = ThresholdSweep(len(opened.classes) + 1, THRESHOLDS)
            for record, truth_HW in some(split):
                score_RHW, took = read(record, maps, config, stride)
                index_R = np.array(record.tags) + 1
                sweeps[split].update(score_RHW.max(axis=0), index_R[score_RHW.argmax(axis=0)], truth_HW)
                seconds.append(took)
                if split == score and record.name in tiles:
                    tiles[record.name].append((way, heat(record.decode(), score_RHW[0])))
        threshold, _ = sweeps[choose].oracle()
        figure = sweeps[score].at(threshold).mean_iou()
        oracle = sweeps[score].oracle()[1].mean_iou()
        row: dict[str, Any] = {"maps": way, "mean_iou": figure, "threshold": threshold, "oracle": oracle}
        table.append(row | {"cpu_seconds": float(np.median(seconds))})
    print(f"seed mIoU on {score}, threshold chosen on {choose}, {limit} images of each at most, one scale, CPU")
    for row in table:
        print(
            f"{row['maps']:24} mIoU {100 * row['mean_iou']:5.1f}  threshold {row['threshold']:.2f}"
            f"  oracle {100 * row['oracle']:5.1f}  {1000 * row['cpu_seconds']:6.1f} ms of CPU an image"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "maps.json", json.dumps(table, indent=1) + "\n")
    sheets = [contact_sheet(some, COLUMNS, TILE) for some in tiles.values()]
    write_jpeg(output / "maps.jpg", np.concatenate(sheets), 85)
    print(output / "maps.jpg")


if __name__ == "__main__":
    typer.run(main)
