"""Compare an exported model with its network on real photos: labels that differ, mIoU where there are masks, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wsss.config import Config
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.data.truth import read_truth
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.settings import validation_side
from wsss.labels.bands import labels_from_grid
from wsss.machine import num_workers
from wsss.models.averaged import log_label_probabilities
from wsss.models.network import Network
from wsss.models.onnx_network import OnnxNetwork
from wsss.reporting import Reporter


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Figures of two forms of a network on the photos of a split: one scale, no flip, no CRF.

    Attributes:
        split: name of the split.
        images: their number.
        masks: how many of them have a mask, all of which are scored.
        side: their area when read is that of a square of this side, pixels.
        mean_iou: of the network and of the exported model, in [0, 1]; None without masks.
        differing: share of pixels with another label.
        seconds: of the network and of the exported model, for all images; reading them is not counted.
    """

    split: str
    images: int
    masks: int
    side: int
    mean_iou: tuple[float, float] | None
    differing: float
    seconds: tuple[float, float]

    def words(self) -> str:
        """In one line."""
        said = f"{self.images} images of {self.split} at {self.side} px, one scale, no flip: "
        if self.mean_iou is not None:
            ours, theirs = (100 * value for value in self.mean_iou)
            said += f"mIoU {ours:.2f} % in torch, {theirs:.2f} % exported ({self.masks} masks), "
        ours, theirs = (1000 * value / self.images for value in self.seconds)
        return f"{said}{100 * self.differing:.2f} % of the pixels differ, {ours:.0f} and {theirs:.0f} ms an image"


def compare_on(
    network: Network, exported: OnnxNetwork, tagged: TaggedSet, config: Config, reporter: Reporter
) -> Comparison:
    """Segment every image of a split with both.

    Raises:
        DataError: a mask cannot be read.
    """
    side = validation_side(config, config.segment)
    forms: tuple[Network | OnnxNetwork, ...] = (network, exported)
    matrices = [ConfusionMatrix(len(tagged.classes) + 1) for _ in forms]
    seconds, masks, differing, pixels = [0.0, 0.0], 0, 0, 0
    reporter.begin("comparing with torch", len(tagged))
    for batch in load_batches(_one_by_one(tagged.records, side, network), num_workers(config.run)):
        (record,), (size,) = batch.records, batch.sizes
        labels = []
        for i, form in enumerate(forms):
            began = time.perf_counter()
            (grid_Chw,) = log_label_probabilities(form, batch.at_scales(torch.device("cpu")))
            seconds[i] += time.perf_counter() - began
            labels.append(labels_from_grid(grid_Chw, size).numpy())
        differing += int(np.count_nonzero(labels[0] != labels[1]))
        pixels += labels[0].size
        if tagged.has_truth(record):
            masks += 1
            truth_HW = read_truth(tagged, record)
            for matrix, label_HW in zip(matrices, labels, strict=True):
                matrix.update(label_HW, truth_HW)
        reporter.advance()
    mean_iou = (matrices[0].mean_iou(), matrices[1].mean_iou()) if masks else None
    return Comparison(
        split=tagged.split,
        images=len(tagged),
        masks=masks,
        side=side,
        mean_iou=mean_iou,
        differing=differing / pixels,
        seconds=(seconds[0], seconds[1]),
    )


def _one_by_one(records: Sequence[Record], side: int, network: Network) -> ScaledImages:
    """Batches of one image: the time of one, and 8-bit models round each batch by its own range."""
    return ScaledImages(records, (side,), network.backbone.stride, 1)
