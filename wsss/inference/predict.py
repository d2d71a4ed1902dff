"""`wsss predict`: masks of plain images. Tags are never used.

Shape suffixes: C = K + 1 label channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss.config import Config
from wsss.data.masks import write_mask
from wsss.data.records import Record
from wsss.data.scaled import ScaledImages, load_batches
from wsss.device import autocast, num_workers
from wsss.evaluation.overlay import overlay, write_jpeg
from wsss.labels.crf import CrfSettings, crf_labels
from wsss.labels.manifest import forget, open_output, write_manifest
from wsss.models.averaged import label_probabilities
from wsss.models.network import Network
from wsss.reporting import Reporter


def predict_masks(
    network: Network,
    records: Sequence[Record],
    out: Path,
    config: Config,
    reporter: Reporter,
    *,
    device: torch.device,
    checkpoint_sha256: str,
    split: str | None = None,
    overlays: bool = True,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write ``labels/NAME.png`` and ``overlays/NAME.jpg`` of every image; what is there already is skipped.

    Returns:
        Counts: images, made, skipped.

    Raises:
        UsageError: the network has no decoder, or the folder was made with other settings.
    """
    settings: dict[str, Any] = {
        "kind": "segmentation",
        "classes": list(network.classes),
        "split": split,
        "backbone": network.backbone.name,
        "checkpoint_sha256": checkpoint_sha256,
        **config.predict.model_dump(mode="json"),
        "amp": config.run.amp,
    }
    network.require_decoder()
    open_output(out, settings, config, overwrite=overwrite)
    todo = [record for record in records if overwrite or not (out / "labels" / f"{record.name}.png").is_file()]
    forget(out / "labels" / f"{record.name}.png" for record in todo)
    reporter.begin("masks", len(records), len(records) - len(todo))
    network = network.to(device).eval()
    images = ScaledImages(todo, config.predict.scales, network.backbone.stride, config.maps.batch_size)
    for batch in load_batches(images, num_workers(config.run)):
        sizes = [(image.shape[0], image.shape[1]) for image in batch.images]
        with autocast(config.run, device):
            probabilities = label_probabilities(network, batch.at_scales(device), sizes, flip=config.predict.flip)
        for record, image_HW3, probabilities_CHW in zip(batch.records, batch.images, probabilities, strict=True):
            label_HW = to_labels(image_HW3.numpy(), probabilities_CHW, crf=config.predict.crf)
            if overlays:
                write_jpeg(out / "overlays" / f"{record.name}.jpg", overlay(image_HW3.numpy(), label_HW))
            write_mask(out / "labels" / f"{record.name}.png", label_HW)
        reporter.advance(len(batch.records))
    counts = {"images": len(records), "made": len(todo), "skipped": len(records) - len(todo)}
    write_manifest(out, settings, counts)
    return counts


def to_labels(image_HW3: np.ndarray[Any, Any], probabilities_CHW: Tensor, *, crf: bool) -> np.ndarray[Any, Any]:
    """The likeliest class of each pixel, (H, W) uint8; the CRF runs over the classes seen without it."""
    label_HW = probabilities_CHW.argmax(dim=0).byte().cpu().numpy()
    if not crf:
        return label_HW
    seen_K = np.isin(np.arange(1, probabilities_CHW.shape[0]), label_HW)
    return crf_labels(image_HW3, probabilities_CHW.float().cpu().numpy(), seen_K, settings=CrfSettings())
