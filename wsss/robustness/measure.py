"""`wsss robustness`: measure the images of a set under a suite, one file each, then sum up.

Shape suffixes: B, N images, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsss.config import Config, LabelsSection
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.data.subsets import evenly
from wsss.data.truth import read_truth
from wsss.errors import UsageError
from wsss.files import write_whole
from wsss.inference.settings import batch_pixels
from wsss.machine import autocast, num_workers, number_type
from wsss.maps.recorder import MapSettings, check_map_settings
from wsss.models.network import Network
from wsss.outputs.choices import data_choices, machine_choices
from wsss.outputs.figures import FigureFolder, Figures, held_figures
from wsss.outputs.manifest import Making
from wsss.outputs.pictures import contact_sheet, write_png
from wsss.reporting import Reporter
from wsss.robustness.reading import at_temperature, measure
from wsss.robustness.suites import ATTACKS, PLAIN, Clean, Condition, SuiteName, conditions_of, rows_of
from wsss.robustness.table import Table, make_table
from wsss.stopping import AGAIN

PASSES = 4
"""A batch has so many times fewer pixels than one of class maps, so that a stopped run loses little."""
COLUMNS, TILE = 4, 440
"""Columns of the sheet of pictures, and the width of a tile in pixels."""
SHEET, SCORES = "perturbations.png", "robustness.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        suite: its name.
        side: images are resized to the area of such a square, pixels.
        limit: images, taken evenly from the split; 0 takes all.
        temperatures: of attention; the plain one is always measured too.
        threshold: class score above which a pixel of a seed has its class; None takes that of the background rule.
        steps: of attacks; None takes those of the suite.
    """

    suite: SuiteName
    side: int
    limit: int = 0
    temperatures: tuple[float, ...] = (PLAIN,)
    threshold: float | None = None
    steps: int | None = None

    def conditions(self, network: Network) -> list[Condition]:
        """Clean images, then the suite."""
        return conditions_of(self.suite, steps=self.steps, masks=network.decoder is not None)

    def all_temperatures(self) -> tuple[float, ...]:
        """The plain one first, each once."""
        return tuple(dict.fromkeys((PLAIN, *self.temperatures)))


def measure_suite(
    network: Network,
    tagged: TaggedSet,
    out: Path,
    config: Config,
    plan: Plan,
    reporter: Reporter,
    *,
    device: torch.device,
    checkpoint_sha256: str,
    overwrite: bool = False,
) -> Table:
    """Measure a suite and write its scores and a sheet of pictures; images that are done are not measured again.

    Masks are opened for scoring alone.

    Args:
        network: of ``train-cls`` or ``train-seg``.
        tagged: the split.
        out: the folder.
        config: run, maps and labels sections.
        plan: what is measured.
        reporter: progress and remarks.
        device: where it computes.
        checkpoint_sha256: of the network.
        overwrite: whatever made the folder.

    Raises:
        UsageError: the class maps or the temperatures do not fit the network, or the folder was made with other
            settings.
        DataError: a mask cannot be read.
        Interrupted: a signal arrived; the images so far are done.
    """
    settings = MapSettings.of(config.maps)
    check_map_settings(network, settings)
    if plan.steps is not None and plan.suite not in ATTACKS:
        raise UsageError(f"--steps: the suite {plan.suite} makes no attack", f"--suite {'|'.join(ATTACKS)}")
    for value in plan.temperatures:
        if not value > 0:
            raise UsageError(f"--temperature {value:g}: expected a number above 0", "--temperature 1,1.5,2")
        with at_temperature(network, value):  # refused where there is no attention
            pass
    tagged = replace(tagged, records=evenly(tagged.columns, plan.limit))
    threshold = background_threshold(config.labels) if plan.threshold is None else plan.threshold
    facts = {
        "kind": "robustness",
        "suite": plan.suite,
        "checkpoint_sha256": checkpoint_sha256,
        "backbone": network.backbone.name,
        "supervision": list(network.supervision),
        "classes": list(tagged.classes),
        "split": tagged.split,
        "side": plan.side,
        "threshold": threshold,
        "temperatures": list(plan.all_temperatures()),
        "steps": plan.steps,
        **asdict(settings),
        "amp": number_type(config.run, device),
    }
    work = _Work(network.to(device).eval(), tagged, config, plan, settings, threshold, device)
    choices = machine_choices(config.run, device) | data_choices(tagged)
    with held_figures(out, facts, reporter, overwrite=overwrite, choices=choices) as folder:
        found = work.measured(folder, reporter)
        table = work.table(found)
        write_whole(out / SCORES, json.dumps(facts | to_json(table), indent=2) + "\n")
        write_png(out / SHEET, work.sheet(found))
        folder.complete({"images": len(found)})
    return table


def background_threshold(labels: LabelsSection) -> float:
    """The class score at which the background rule of pseudo labels changes."""
    made = Making(background=labels.background, exponent=labels.exponent, low=labels.low, high=labels.high)
    threshold = made.threshold()
    assert threshold is not None
    return threshold


def to_json(table: Table) -> dict[str, Any]:
    """Plain values."""
    return {
        "images": table.images,
        "scored": table.scored,
        "scores": [score.to_json() for score in table.scores],
    }


@dataclass(frozen=True, slots=True)
class _Work:
    """A network and the images that it is measured on."""

    network: Network
    tagged: TaggedSet
    config: Config
    plan: Plan
    settings: MapSettings
    threshold: float
    device: torch.device

    def measured(self, folder: FigureFolder, reporter: Reporter) -> dict[str, Figures]:
        """The figures of every image by name, in the order of the set: read, or measured now.

        Batches are those of the whole set, so that work which was stopped ends with the same bits.
        """
        records = self.tagged.records
        made_from = {record.name: folder.made_from(record, self._truth(record)) for record in records}
        read = {name: folder.read(name, made) for name, made in made_from.items()}
        found = {name: figures for name, figures in read.items() if figures is not None}
        reporter.begin(self.plan.suite, len(records), len(found))
        pixels = batch_pixels(self.config.run, self.device) // PASSES
        images = ScaledImages(records, (self.plan.side,), self.network.backbone.stride, pixels)
        images.batches = [batch for batch in images.batches if any(record.name not in found for record in batch)]
        for batch in load_batches(images, num_workers(self.config.run), self.device):
            for record, figures in zip(batch.records, self._measure(batch), strict=True):
                if record.name not in found:
                    folder.write(record.name, made_from[record.name], figures)
                    found[record.name] = figures
                    reporter.advance()
            folder.stop.leave_if_asked(f"after {len(found)} of {len(records)} images", AGAIN)
        return {record.name: found[record.name] for record in records}

    def table(self, found: Mapping[str, Figures]) -> Table:
        """The scores."""
        present_NK, known_NK = self._tags(self.tagged.records)
        rows = rows_of(self.plan.conditions(self.network), self.plan.all_temperatures())
        return make_table(list(found.values()), rows, present_NK, known_NK, self.threshold)

    def sheet(self, found: Mapping[str, Figures]) -> NDArray[np.uint8]:
        """The first image under every condition, beside it its strongest class map."""
        pictures = found[self.tagged.records[0].name]["pictures"]
        rows = rows_of(self.plan.conditions(self.network), self.plan.all_temperatures())
        captions = [
            " ".join(filter(None, (row.kind, row.level, row.threat, f"T={row.temperature:g}" * (row.temperature != 1))))
            for row in rows
        ]
        return contact_sheet(list(zip(captions, pictures, strict=True)), COLUMNS, TILE)

    def _measure(self, batch: ScaledBatch) -> list[Figures]:
        present_BK, known_BK = map(torch.from_numpy, self._tags(batch.records))
        names = tuple(record.name for record in batch.records)
        truths = [self._truth(record) for record in batch.records]
        clean = Clean(
            images_B3HW=batch.at_scales(self.device)[0],
            names=names,
            present_BK=present_BK,
            known_BK=known_BK,
            saliency_Bhw=torch.empty(0),
        )
        pictured = [name == self.tagged.records[0].name for name in names]
        with autocast(self.config.run, self.device):
            return measure(
                self.network,
                clean,
                self.plan.conditions(self.network),
                self.plan.all_temperatures(),
                self.settings,
                self.threshold,
                truths,
                pictured,
            )

    def _tags(self, records: Sequence[Record]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        present = [self.tagged.present(record) for record in records]
        return np.stack(present), np.stack([self.tagged.known(record) for record in records])

    def _truth(self, record: Record) -> NDArray[np.uint8] | None:
        return read_truth(self.tagged, record) if self.tagged.has_truth(record) else None
