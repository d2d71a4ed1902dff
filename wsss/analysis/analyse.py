"""`wsss analyze`: measure the images of a set, one file each, then say what blocks and heads do.

Shape suffixes: B images, K classes, L blocks, R present classes of an image, h x w patch grid, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsss.analysis.measure import check_method, measure
from wsss.analysis.report import write_report
from wsss.analysis.summary import Analysis, Oracle, summarise
from wsss.config import Config
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.data.subsets import evenly
from wsss.data.truth import read_truth
from wsss.errors import DataError, UsageError
from wsss.evaluation.confusion import ThresholdSweep
from wsss.inference.evaluate import ORACLE_THRESHOLDS, strongest_class
from wsss.inference.settings import batch_pixels
from wsss.machine import autocast, num_workers, number_type
from wsss.maps.recorder import MapSettings, check_map_settings
from wsss.maps.scores import normalised
from wsss.models.network import TRANSFORMERS, Network
from wsss.outputs.choices import data_choices, machine_choices
from wsss.outputs.figures import FigureFolder, Figures, held_figures
from wsss.reporting import Reporter
from wsss.stopping import AGAIN

PASSES = 8
"""A batch is run so many times more often than for class maps, so it has so many times fewer pixels."""


def analyse(
    network: Network,
    tagged: TaggedSet,
    out: Path,
    config: Config,
    reporter: Reporter,
    *,
    device: torch.device,
    checkpoint_sha256: str,
    side: int,
    limit: int = 0,
    overwrite: bool = False,
) -> Analysis:
    """Measure images, sum up and write the report; images that are done are not measured again.

    Masks are opened for scoring alone.

    Args:
        network: of ``train-cls`` or ``train-seg``.
        tagged: the split.
        out: the folder of the figures and of the report.
        config: run and maps sections.
        reporter: progress and remarks.
        device: where it computes.
        checkpoint_sha256: of the network.
        side: images are resized to the area of such a square, pixels.
        limit: images, taken evenly from the split; 0 takes all.
        overwrite: whatever made the folder.

    Raises:
        UsageError: the class maps do not fit the network, or the folder was made with other settings.
        DataError: no image has a tag, or a mask cannot be read.
        Interrupted: a signal arrived; the images so far are done.
    """
    settings = MapSettings.of(config.maps)
    if not network.backbone.has_attention:
        raise UsageError(f"{network.backbone.name} has no attention to analyse", TRANSFORMERS)
    check_method(settings)
    check_map_settings(network, replace(settings, start_layer=0))
    tagged = replace(tagged, records=evenly(tagged.columns, limit))
    if not any(record.tags for record in tagged.records):
        raise DataError(f"{tagged.root}: no image of split '{tagged.split}' has a tag", f"wsss data info {tagged.root}")
    facts = {
        "kind": "analysis",
        "checkpoint_sha256": checkpoint_sha256,
        "backbone": network.backbone.name,
        "classes": list(tagged.classes),
        "split": tagged.split,
        "side": side,
        **config.maps.model_dump(mode="json", include={"method", "coupling", "rows", "gamma", "spread"}),
        "amp": number_type(config.run, device),
    }
    choices = machine_choices(config.run, device) | data_choices(tagged)
    work = _Work(network.to(device).eval(), tagged, config, settings, side, device)
    with held_figures(out, facts, reporter, overwrite=overwrite, choices=choices) as folder:
        found = work.measured(folder, reporter)
        oracle = work.oracle(found, reporter)
        analysis = summarise(facts, list(found.values()), oracle)
        write_report(out, analysis)
        folder.complete({"images": len(found)})
    return analysis


def count_seeds(
    sweeps: Sequence[ThresholdSweep], maps_LRhw: NDArray[np.float32], tags: Sequence[int], truth_HW: NDArray[np.uint8]
) -> None:
    """Add the seeds of one image to the sweep of each range, at the size of its mask.

    Args:
        sweeps: of the ranges, by their first block.
        maps_LRhw: class maps of each range.
        tags: class indices from 0, one a map.
        truth_HW: the mask.
    """
    size = (truth_HW.shape[0], truth_HW.shape[1])
    for sweep, maps_Rhw in zip(sweeps, maps_LRhw, strict=True):
        scores_Rhw = normalised(torch.from_numpy(maps_Rhw)).numpy()
        sweep.update(*strongest_class(scores_Rhw, np.array(tags, np.int64), size), truth_HW)


@dataclass(frozen=True, slots=True)
class _Work:
    """A network and the images that it is measured on."""

    network: Network
    tagged: TaggedSet
    config: Config
    settings: MapSettings
    side: int
    device: torch.device

    def measured(self, folder: FigureFolder, reporter: Reporter) -> dict[str, Figures]:
        """The figures of every image by name, in the order of the set: read, or measured now.

        Batches are those of the whole set, so that work which was stopped ends with the same bits.
        """
        records = self.tagged.records
        made_from = {record.name: folder.made_from(record, self._truth(record)) for record in records}
        read = {name: folder.read(name, made) for name, made in made_from.items()}
        found = {name: figures for name, figures in read.items() if figures is not None}
        reporter.begin("images", len(records), len(found))
        pixels = batch_pixels(self.config.run, self.device) // PASSES
        images = ScaledImages(records, (self.side,), self.network.backbone.stride, pixels)
        images.batches = [batch for batch in images.batches if any(record.name not in found for record in batch)]
        for batch in load_batches(images, num_workers(self.config.run), self.device):
            for record, figures in zip(batch.records, self._measure(batch), strict=True):
                if record.name not in found:
                    folder.write(record.name, made_from[record.name], figures)
                    found[record.name] = figures
                    reporter.advance()
            folder.stop.leave_if_asked(f"after {len(found)} of {len(records)} images", AGAIN)
        return {record.name: found[record.name] for record in records}

    def oracle(self, found: Mapping[str, Figures], reporter: Reporter) -> list[Oracle]:
        """The best seeds of the maps of each range, by their first block; none where there are no masks."""
        records = [record for record in self.tagged.records if self.tagged.has_truth(record)]
        if not records:
            return []
        sweeps = [
            ThresholdSweep(len(self.tagged.classes) + 1, ORACLE_THRESHOLDS) for _ in range(self.network.backbone.depth)
        ]
        reporter.begin("masks", len(records))
        for record in records:
            count_seeds(sweeps, found[record.name]["maps"], record.tags, read_truth(self.tagged, record))
            reporter.advance()
        best = [sweep.oracle() for sweep in sweeps]
        return [Oracle(matrix.mean_iou(), threshold, len(records)) for threshold, matrix in best]

    def _measure(self, batch: ScaledBatch) -> list[Figures]:
        present_BK = torch.from_numpy(np.stack([self.tagged.present(record) for record in batch.records]))
        truths = [self._truth(record) for record in batch.records]
        with autocast(self.config.run, self.device):
            return measure(self.network, batch.at_scales(self.device)[0], present_BK, self.settings, truths)

    def _truth(self, record: Record) -> NDArray[np.uint8] | None:
        return read_truth(self.tagged, record) if self.tagged.has_truth(record) else None
