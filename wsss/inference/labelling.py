"""`wsss make-pseudo`: pseudo labels of a tagged set, on disk.

The network and the refinement of one batch run while threads complete and write earlier images, and processes run
their dense CRF.

Shape suffixes: B images, R present classes of an image, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

import io
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
from wsss.data.layers import NO_SALIENCY, check_layers, read_layer
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import LARGEST_SIDE, ScaledBatch, ScaledImages, equal_sizes, reduced
from wsss.errors import UsageError
from wsss.inference.batches import (
    large_records,
    process_large,
    process_remaining,
    range_facts,
    take_share,
    tile_facts,
    without_no_data,
)
from wsss.inference.certainty import mean_scores
from wsss.inference.labeller import Labeller
from wsss.inference.refiner_file import FittedRefiner
from wsss.inference.settings import batch_pixels, crf_facts
from wsss.labels.crf import Crf
from wsss.labels.recipe import Refined
from wsss.machine import number_type
from wsss.models.network import Network
from wsss.outputs.choices import data_choices, machine_choices
from wsss.outputs.folder import LabelFolder, Source, held_folder
from wsss.outputs.palettes import PaletteName
from wsss.outputs.pictures import contact_sheet, encode_jpeg, label_at, overlay, with_key
from wsss.outputs.provenance import UNKNOWN, all_of, data_supervision
from wsss.outputs.shards import Division
from wsss.pool import Job
from wsss.reporting import Reporter
from wsss.shard import Shard

PIXELS_AT_ONCE = {"cpu": 1}
"""Pixels of the images refined together, by device: a CPU refines one image at a time."""

MANY_PIXELS = 1 << 22
"""The same on other devices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to write beside the label maps.

    Attributes:
        scores: also the class scores, 8 bit, on the patch grid, of the present classes.
        overlays: number of pictures, spread over the set.
        palette: colours of the pictures that are drawn.
        overwrite: make again what exists.
    """

    scores: bool = False
    overlays: int = 0
    palette: PaletteName = "voc"
    overwrite: bool = False

    def parts(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """The images, of all in their order, that get a file in each part of the folder beside the label maps."""
        step = max(1, len(names) // max(1, self.overlays))
        pictured = frozenset(names[::step][: self.overlays])
        return {"scores": frozenset(names if self.scores else ()), "overlays": pictured}


def make_pseudo_labels(
    network: Network,
    tagged: TaggedSet,
    out: Path,
    config: Config,
    reporter: Reporter,
    *,
    device: torch.device,
    checkpoint_sha256: str,
    wanted: Wanted | None = None,
    shard: Shard | None = None,
    fitted: FittedRefiner | None = None,
) -> dict[str, int]:
    """Write a pseudo label for every record; records that are done are skipped.

    Returns:
        Counts: images, made, skipped, and pixels of background, foreground and ignored in all labels of the set. With
        ``shard``, of its share; the folder is then unfinished until ``wsss.outputs.merge`` has merged all shards.

    Raises:
        UsageError: the folder was made with other settings, holds something else, or another process writes there.
        DataError: a saliency map is missing or has another size than its image.
        MachineError: the CRF is wanted and not installed, or its process died, or the disk refuses.
        Interrupted: a signal arrived; the labels made so far are complete.
    """
    wanted = wanted or Wanted()
    labeller = Labeller(network, config, device, fitted=fitted)
    whole, large = large_records(tagged.records, config.maps.tile)
    _refuse_in_windows(large, config, wanted)
    settings = (
        _settings(labeller, tagged, checkpoint_sha256)
        | tile_facts(large, config.maps.tile)
        | range_facts(tagged.records)
    )
    pixels = batch_pixels(config.run, device)
    images = ScaledImages(whole, labeller.scales, network.backbone.stride, pixels, images=True)
    large, share = take_share(images, large, shard)
    mine = replace(tagged, records=[record for record in tagged.records if record.name in share])
    saliency = config.data.saliency
    if saliency is not None:
        check_layers(saliency, mine, "saliency map", NO_SALIENCY)
    sources = [Source.of(record, saliency) for record in mine.records]
    choices = machine_choices(config.run, device) | data_choices(tagged)
    division = Division.of(shard, tagged.records, tagged.classes)
    with held_folder(
        out, settings, config, reporter, overwrite=wanted.overwrite, choices=choices, division=division
    ) as folder:
        parts = wanted.parts(tagged.columns.names)
        todo = folder.begin(sources, reporter, parts=parts, overwrite=wanted.overwrite)
        remaining = {source.name: source for source in sources if source.name in todo}
        writer = _Writer(labeller, tagged, folder, remaining, parts, wanted.palette)
        process_remaining(
            "pseudo labels",
            images,
            todo - {record.name for record in large},
            writer,
            config.run,
            device,
            reporter,
            folder.stop,
            crf=config.labels.crf,
        )
        again = [record for record in large if record.name in todo]
        process_large("pseudo labels", again, writer.large, reporter, folder.stop)
        counts = folder.complete(sources)
    return {"made": len(todo), "skipped": len(mine) - len(todo), **counts}


def _refuse_in_windows(large: Sequence[Record], config: Config, wanted: Wanted) -> None:
    """Refuse what a picture that is read in windows cannot have.

    Raises:
        UsageError: there is such a picture, and one of these options.
    """
    options = {
        "--crf": config.labels.crf,
        "--saliency": config.data.saliency is not None,
        "--save-scores": wanted.scores,
    }
    asked = [option for option, given in options.items() if given]
    if large and asked:
        raise UsageError(
            f"'{large[0].name}' is larger than --tile {config.maps.tile} and is read in windows, for which"
            f" {' and '.join(asked)} cannot be used",
            f"leave out {' and '.join(asked)}, or read it whole with a larger --tile",
        )


def _settings(labeller: Labeller, tagged: TaggedSet, checkpoint_sha256: str) -> dict[str, Any]:
    """All that decides the content of the folder except its images."""
    network, config = labeller.network, labeller.config
    supervision = all_of(
        network.supervision or UNKNOWN,
        () if labeller.fitted is None else labeller.fitted.supervision,
        data_supervision(config.data, saliency=True, unknown=tagged.has_unknown(), of_objects=tagged.of_objects),
    )
    return {
        "kind": "pseudo",
        "classes": list(tagged.classes),
        "split": tagged.split,
        "backbone": network.backbone.name,
        "checkpoint_sha256": checkpoint_sha256,
        **config.maps.model_dump(mode="json", exclude={"tile"}),
        "scales": list(labeller.scales),
        **labeller.labels.model_dump(mode="json"),
        **crf_facts(config.labels.crf, config.crf),
        **({} if labeller.fitted is None else labeller.fitted.facts()),
        "saliency": config.data.saliency is not None,
        "supervision": list(supervision),
        "amp": number_type(config.run, labeller.device),
    }


@dataclass(frozen=True, slots=True)
class _Writer:
    """Labels batches and writes the labels of the images in ``sources``, and their ``parts`` (`Wanted.parts`)."""

    labeller: Labeller
    tagged: TaggedSet
    folder: LabelFolder
    sources: Mapping[str, Source]
    parts: Mapping[str, frozenset[str]]
    palette: PaletteName

    def __call__(self, batches: Iterable[ScaledBatch], crf: Callable[..., NDArray[Any]]) -> Iterator[Job[None]]:
        """Read and refine each batch; one job an image completes and writes its label."""
        device = self.labeller.device
        pixels = PIXELS_AT_ONCE.get(device.type, MANY_PIXELS)
        for batch in batches:
            present_BK = torch.from_numpy(np.stack([self.tagged.present(record) for record in batch.records]))
            reading = self.labeller.read(batch.at_scales(device), present_BK)
            some = [i for i, record in enumerate(batch.records) if record.name in self.sources]
            for group in equal_sizes(batch.sizes, some, pixels):
                images, size = [batch.images[i] for i in group], batch.sizes[group[0]]
                refined = self.labeller.refine(images, size, reading, group).to("cpu")
                for place, i in enumerate(group):
                    record = batch.records[i]
                    scores_Rhw = reading.scores.of_image(i).cpu()
                    finish = partial(
                        self._finish,
                        record,
                        batch.images[i].numpy(),
                        size,
                        refined.select([place]),
                        scores_Rhw,
                        partial(crf, record.name),
                    )
                    yield Job(record.name, finish, pixels=2 * size[0] * size[1])  # the label, and its opening

    def large(self, record: Record) -> None:
        """Label a large picture in windows and write its label."""
        image_HW3 = record.decode()
        label_HW = self.labeller.label_large(image_HW3, torch.from_numpy(self.tagged.present(record))[None])
        label_HW = without_no_data(label_HW, record)
        drawn = None
        if record.name in self.parts["overlays"]:
            drawn = self._picture(record, reduced(torch.from_numpy(image_HW3), LARGEST_SIDE).numpy(), label_HW)
        self.folder.write(self.sources[record.name], label_HW, scores=None, overlay=drawn)

    def _finish(
        self,
        record: Record,
        image_HW3: NDArray[np.uint8],
        size: tuple[int, int],
        refined: Refined,
        scores_Rhw: Tensor,
        crf: Crf,
    ) -> None:
        """Label, scores and picture of an image, on the CPU."""
        saliency = self.labeller.config.data.saliency
        saliency_HW = None if saliency is None else torch.from_numpy(read_layer(saliency, record, size))
        label_HW = without_no_data(self.labeller.complete(refined, size, image_HW3, saliency_HW, crf), record)
        self.folder.write(
            self.sources[record.name],
            label_HW,
            scores=_packed(scores_Rhw, record.tags, size) if record.name in self.parts["scores"] else None,
            certainty=mean_scores(scores_Rhw, record.tags, label_HW),
            overlay=self._picture(record, image_HW3, label_HW) if record.name in self.parts["overlays"] else None,
        )

    def _picture(self, record: Record, image_HW3: NDArray[np.uint8], label_HW: NDArray[np.uint8]) -> bytes:
        """The image beside its pseudo label, with a key to the colours: the content of a JPEG."""
        names = ", ".join(self.tagged.classes[tag] for tag in record.tags) or "no class"
        drawn_HW3 = overlay(image_HW3, label_at(label_HW, image_HW3.shape[:2]), palette=self.palette)
        sheet_HW3 = contact_sheet([(names, image_HW3), ("pseudo label", drawn_HW3)], 2, image_HW3.shape[1])
        return encode_jpeg(with_key(sheet_HW3, label_HW, self.tagged.classes, self.palette))


def _packed(scores_Rhw: Tensor, tags: Sequence[int], size: tuple[int, int]) -> bytes:
    """A .npz of the scores as 8 bits: ``scores`` (R, h, w), ``classes`` (R,), ``size`` (H, W)."""
    scores = (scores_Rhw.clamp(0, 1) * 255).round().byte().cpu().numpy()
    packed = io.BytesIO()
    np.savez_compressed(packed, scores=scores, classes=np.array(tags, dtype=np.int64), size=np.array(size))
    return packed.getvalue()
