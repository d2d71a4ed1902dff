"""`wsss predict`: masks of plain images, on disk. Tags are never used.

The network segments one batch while threads draw and write earlier images, and processes run their dense CRF.

Shape suffixes: C = K + 1 label channels, h x w grid of the decoder, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import Config
from wsss.data.records import Record
from wsss.data.scaled import LARGEST_SIDE, ScaledBatch, ScaledImages, reduced
from wsss.inference.batches import (
    large_records,
    process_large,
    process_remaining,
    range_facts,
    tile_facts,
    without_no_data,
)
from wsss.inference.segmenter import Segmenter
from wsss.inference.settings import batch_pixels, crf_facts
from wsss.labels.crf import Crf, crf_probabilities
from wsss.machine import number_type
from wsss.models.network import Network
from wsss.outputs.choices import machine_choices
from wsss.outputs.folder import LabelFolder, Source, held_folder
from wsss.outputs.pictures import encode_jpeg, label_at, overlay, with_key
from wsss.pool import Job
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
    origin: Mapping[str, Any] | None = None,
    overlays: bool = True,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write ``labels/NAME.png`` and ``overlays/NAME.jpg`` of every image; images that are done are skipped.

    Args:
        network: with a decoder.
        records: the images.
        out: the folder to write.
        config: run, predict and crf sections.
        reporter: progress and remarks.
        device: where it computes.
        checkpoint_sha256: of the file that the network was read from.
        split: name of their split; None where they are no split.
        origin: "data" and "format" of the images (`wsss.outputs.choices`), for the manifest.
        overlays: draw the masks over the images.
        overwrite: make every mask again.

    Returns:
        Counts: images, made, skipped, and pixels of background, foreground and ignored in all of them.

    Raises:
        UsageError: the network has no decoder, or the folder is in use or was made with other settings.
        MachineError: the CRF is wanted and not installed, or its process died, or the disk refuses.
        Interrupted: a signal arrived; the masks made so far are complete.
    """
    segmenter = Segmenter(network, config, device)
    untagged = [replace(record, tags=()) for record in records]
    whole, large = large_records(untagged, config.predict.tile)
    facts = tile_facts(large, config.predict.tile) | range_facts(records)
    settings = _settings(segmenter, checkpoint_sha256, split) | facts
    sources = [Source.of(record) for record in untagged]
    choices = {**machine_choices(config.run, device), **(origin or {}), "split": split, "images": len(records)}
    with held_folder(out, settings, config, reporter, overwrite=overwrite, choices=choices) as folder:
        drawn = frozenset(source.name for source in sources if overlays)
        todo = folder.begin(sources, reporter, parts={"overlays": drawn}, overwrite=overwrite)
        stride, pixels = network.backbone.stride, batch_pixels(config.run, device)
        writer = _Writer(
            segmenter, folder, {source.name: source for source in sources if source.name in todo}, overlays
        )
        process_remaining(
            "masks",
            ScaledImages(whole, segmenter.scales, stride, pixels, images=overlays or config.predict.crf),
            [record.name for record in whole if record.name in todo],
            writer,
            config.run,
            device,
            reporter,
            folder.stop,
            crf=config.predict.crf,
        )
        process_large("masks", [record for record in large if record.name in todo], writer.large, reporter, folder.stop)
        counts = folder.complete(sources)
    return {"made": len(todo), "skipped": len(records) - len(todo), **counts}


def _settings(segmenter: Segmenter, checkpoint_sha256: str, split: str | None) -> dict[str, Any]:
    """All that decides the content of the folder except its images."""
    network, config = segmenter.network, segmenter.config
    return {
        "kind": "segmentation",
        "classes": list(network.classes),
        "split": split,
        "backbone": network.backbone.name,
        "checkpoint_sha256": checkpoint_sha256,
        "supervision": list(network.supervision),
        **config.predict.model_dump(mode="json", exclude={"tile"}),
        "scales": list(segmenter.scales),
        **crf_facts(config.predict.crf, config.crf),
        "amp": number_type(config.run, segmenter.device),
    }


@dataclass(frozen=True, slots=True)
class _Writer:
    """Segments batches and writes the masks of the images in ``sources``."""

    segmenter: Segmenter
    folder: LabelFolder
    sources: Mapping[str, Source]
    overlays: bool

    def __call__(self, batches: Iterable[ScaledBatch], crf: Callable[..., NDArray[Any]]) -> Iterator[Job[None]]:
        """Segment each batch; one job an image draws and writes it."""
        for batch in batches:
            grid_BChw = self.segmenter.log_probabilities(batch.at_scales(self.segmenter.device))
            for i, record in enumerate(batch.records):
                if record.name not in self.sources:
                    continue
                label_HW = self.segmenter.label(grid_BChw[i], batch.sizes[i])
                grid_Chw = grid_BChw[i].cpu().clone() if self.segmenter.config.predict.crf else None
                image_HW3 = batch.images[i].numpy() if batch.images else None
                finish = partial(self._finish, record, image_HW3, label_HW, grid_Chw, partial(crf, record.name))
                yield Job(record.name, finish, pixels=label_HW.size)

    def large(self, record: Record) -> None:
        """Segment a large picture in windows, draw it and write it."""
        image_HW3 = record.decode()
        label_HW = self.segmenter.label_large(image_HW3)
        small_HW3 = reduced(torch.from_numpy(image_HW3), LARGEST_SIDE).numpy() if self.overlays else None
        del image_HW3
        self._finish(record, small_HW3, label_HW, None, crf_probabilities)

    def _finish(
        self,
        record: Record,
        image_HW3: NDArray[np.uint8] | None,
        label_HW: NDArray[np.uint8],
        grid_Chw: Tensor | None,
        crf: Crf,
    ) -> None:
        """Refine the label map where the CRF is wanted, draw it and write it."""
        drawn = None
        if image_HW3 is not None and grid_Chw is not None:
            label_HW = self.segmenter.refined(label_HW, grid_Chw, image_HW3, crf)
        label_HW = without_no_data(label_HW, record)
        if self.overlays and image_HW3 is not None:
            small_HW = label_at(label_HW, image_HW3.shape[:2])
            drawn = encode_jpeg(with_key(overlay(image_HW3, small_HW), label_HW, self.segmenter.classes))
        self.folder.write(self.sources[record.name], label_HW, overlay=drawn)
