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
from wsss.data.geo import remark
from wsss.data.index import keep_readable_records
from wsss.data.levels import with_levels
from wsss.data.records import Record
from wsss.data.scaled import LARGEST_SIDE, ScaledBatch, ScaledImages, reduced
from wsss.errors import DataError
from wsss.inference.batches import (
    large_records,
    process_large,
    process_remaining,
    range_facts,
    take_share,
    tile_facts,
    without_no_data,
)
from wsss.inference.certainty import margins
from wsss.inference.refiner_file import FittedRefiner
from wsss.inference.segmenter import Segmenter
from wsss.inference.settings import batch_pixels, crf_facts
from wsss.labels.crf import Crf, crf_probabilities
from wsss.machine import number_type
from wsss.models.network import Network
from wsss.models.onnx_network import OnnxNetwork
from wsss.outputs.choices import machine_choices, use_words
from wsss.outputs.folder import LabelFolder, Source, held_folder
from wsss.outputs.palettes import PaletteName
from wsss.outputs.pictures import encode_jpeg, label_at, overlay, with_key
from wsss.outputs.provenance import UNKNOWN, all_of
from wsss.outputs.shards import Division
from wsss.pool import Job
from wsss.reporting import Reporter
from wsss.shard import Shard


def predict_masks(
    network: Network | OnnxNetwork,
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
    palette: PaletteName = "voc",
    overwrite: bool = False,
    shard: Shard | None = None,
    fitted: FittedRefiner | None = None,
) -> dict[str, int]:
    """Write ``labels/NAME.png`` and ``overlays/NAME.jpg`` of every image; images that are done are skipped.

    Args:
        network: with a decoder, or one that was exported.
        records: the images.
        out: the folder to write.
        config: run, predict and crf sections.
        reporter: progress and remarks.
        device: where it computes.
        checkpoint_sha256: of the file that the network was read from.
        split: name of their split; None where they are no split.
        origin: "data" and "format" of the images (`wsss.outputs.choices`), for the manifest.
        overlays: draw the masks over the images.
        palette: colours of the pictures that are drawn.
        overwrite: make every mask again.
        shard: the share of the images to segment; the folder is then unfinished until ``wsss.outputs.merge`` has merged
            all shards.
        fitted: of ``wsss fit-refiner``, refines the masks.

    Returns:
        Counts: images, made, skipped, and pixels of background, foreground and ignored in all of them.

    Raises:
        UsageError: the network has no decoder, or the folder is in use or was made with other settings.
        MachineError: the CRF is wanted and not installed, or its process died, or the disk refuses.
        Interrupted: a signal arrived; the masks made so far are complete.
    """
    segmenter = Segmenter(network, config, device, fitted=fitted)
    untagged = [replace(record, tags=()) for record in records]
    whole, large = large_records(untagged, config.predict.tile)
    facts = tile_facts(large, config.predict.tile) | range_facts(records)
    settings = _settings(segmenter, checkpoint_sha256, split) | facts
    stride, pixels = network.backbone.stride, batch_pixels(config.run, device)
    images = ScaledImages(whole, segmenter.scales, stride, pixels, images=overlays or segmenter.refines)
    large, share = take_share(images, large, shard)
    sources = [Source.of(record) for record in untagged if record.name in share]
    choices = {**machine_choices(config.run, device), **(origin or {}), "split": split, "images": len(records)}
    division = Division.of(shard, untagged, network.classes)
    with held_folder(
        out, settings, config, reporter, overwrite=overwrite, choices=choices, division=division
    ) as folder:
        drawn = frozenset(source.name for source in sources if overlays)
        todo = folder.begin(sources, reporter, parts={"overlays": drawn}, overwrite=overwrite)
        writer = _Writer(
            segmenter, folder, {source.name: source for source in sources if source.name in todo}, overlays, palette
        )
        process_remaining(
            "masks",
            images,
            todo - {record.name for record in large},
            writer,
            config.run,
            device,
            reporter,
            folder.stop,
            crf=config.predict.crf,
        )
        process_large("masks", [record for record in large if record.name in todo], writer.large, reporter, folder.stop)
        counts = folder.complete(sources)
    return {"made": len(todo), "skipped": len(sources) - len(todo), **counts}


def predict_readable(
    network: Network | OnnxNetwork,
    listed: Sequence[Record],
    out: Path,
    config: Config,
    reporter: Reporter,
    *,
    data: Path,
    kind: str,
    device: torch.device,
    split: str | None = None,
    **others: Any,
) -> dict[str, int]:
    """``predict_masks`` of the images that can be read; the others are said and counted.

    Args:
        network, out, config, reporter, device, split: see ``predict_masks``.
        listed: the images.
        data: the folder or image that was named.
        kind: its format; empty for a plain folder and for an image.
        others: further arguments of ``predict_masks``.

    Returns:
        Also "unreadable", the number of the others.

    Raises:
        DataError: no image can be read.
        UsageError, MachineError, Interrupted: see ``predict_masks``.
    """
    records, bad = keep_readable_records(listed, reporter=reporter)
    for message in bad:
        reporter.say(f"skipped {message}")
    if not records:
        raise DataError(f"{data}: no image can be read ({bad[0]})", "convert it to PNG or JPEG")
    if words := remark(records.paths):
        reporter.say(words)
    records = with_levels(records, config.data.levels, reporter.say)
    origin = f"{data} (format {kind})" if kind else str(data)
    reporter.say(use_words(config.run, device, origin, split, len(records)))
    where = {"data": str(data.absolute()), "format": kind}
    counts = predict_masks(network, records, out, config, reporter, device=device, split=split, origin=where, **others)
    reporter.say(f"{counts['made']} masks made, {counts['skipped']} there already")
    if counts["foreground"] == 0:
        reporter.say("they hold background alone: the training was probably too short (--epochs)")
    return {**counts, "unreadable": len(bad)}


def _settings(segmenter: Segmenter, checkpoint_sha256: str, split: str | None) -> dict[str, Any]:
    """All that decides the content of the folder except its images."""
    network, config, fitted = segmenter.network, segmenter.config, segmenter.fitted
    supervision: Sequence[str] = network.supervision
    refining: dict[str, Any] = {}
    if fitted is not None:
        supervision = all_of(network.supervision or UNKNOWN, fitted.supervision)
        refining = fitted.facts() | {"pamr_stride": config.labels.pamr_stride}
    return {
        "kind": "segmentation",
        "classes": list(network.classes),
        "split": split,
        "backbone": network.backbone.name,
        "checkpoint_sha256": checkpoint_sha256,
        "supervision": list(supervision),
        **config.predict.model_dump(mode="json", exclude={"tile"}),
        "scales": list(segmenter.scales),
        **crf_facts(config.predict.crf, config.crf),
        **refining,
        "amp": number_type(config.run, segmenter.device),
    }


@dataclass(frozen=True, slots=True)
class _Writer:
    """Segments batches and writes the masks of the images in ``sources``."""

    segmenter: Segmenter
    folder: LabelFolder
    sources: Mapping[str, Source]
    overlays: bool
    palette: PaletteName

    def __call__(self, batches: Iterable[ScaledBatch], crf: Callable[..., NDArray[Any]]) -> Iterator[Job[None]]:
        """Segment each batch; one job an image draws and writes it."""
        for batch in batches:
            grid_BChw = self.segmenter.log_probabilities(batch.at_scales(self.segmenter.device))
            for i, record in enumerate(batch.records):
                if record.name not in self.sources:
                    continue
                label_HW = self.segmenter.label(grid_BChw[i], batch.sizes[i])
                grid_Chw = grid_BChw[i].cpu().clone() if self.segmenter.refines else None
                image_HW3 = batch.images[i].numpy() if batch.images else None
                sure = margins(grid_BChw[i])
                finish = partial(self._finish, record, image_HW3, label_HW, grid_Chw, partial(crf, record.name), sure)
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
        certainty: Mapping[int, float] | None = None,
    ) -> None:
        """Refine the label map where that is wanted, draw it and write it."""
        drawn = None
        if image_HW3 is not None and grid_Chw is not None:
            label_HW = self.segmenter.refined(label_HW, grid_Chw, image_HW3, crf)
        label_HW = without_no_data(label_HW, record)
        if self.overlays and image_HW3 is not None:
            small_HW = label_at(label_HW, image_HW3.shape[:2])
            drawn_HW3 = overlay(image_HW3, small_HW, palette=self.palette)
            drawn = encode_jpeg(with_key(drawn_HW3, label_HW, self.segmenter.classes, self.palette))
        self.folder.write(self.sources[record.name], label_HW, overlay=drawn, certainty=certainty)
