"""`wsss make-pseudo`: pseudo labels of a tagged set, on disk.

The network and the refinement of one batch run while threads complete and write earlier images, and processes their
dense CRF.

Shape suffixes: B images, K classes, R present classes of an image, S slots for them, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss.config import Config, LabelsSection
from wsss.data.layers import NO_SALIENCY, check_layers, read_layer
from wsss.data.masks import write_mask
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import ScaledBatch, equal_sizes
from wsss.files import write_whole
from wsss.inference.remaining import label_remaining
from wsss.labels.crf import Crf
from wsss.labels.recipe import Refined, complete, opening_of, refine_scores, resized, working_size
from wsss.machine import autocast
from wsss.maps.generate import multiscale_scores
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings
from wsss.models.averaged import LabelProbabilities
from wsss.models.network import Network
from wsss.outputs.folder import count_pixels, forget, label_path, output_folder, source, write_manifest
from wsss.outputs.pictures import contact_sheet, overlay, with_key, write_jpeg
from wsss.outputs.provenance import UNKNOWN, joined, of_data
from wsss.reporting import Reporter

PIXELS_AT_ONCE = {"cpu": 1}
"""Pixels of the images refined together: one image keeps a CPU busy, ``MANY_PIXELS`` other devices."""

MANY_PIXELS = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to write beside the label maps.

    Attributes:
        scores: also the class scores, 8 bit, on the patch grid, of the present classes.
        overlays: so many pictures, spread over the set.
        overwrite: make again what is there.
    """

    scores: bool = False
    overlays: int = 0
    overwrite: bool = False


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
) -> dict[str, int]:
    """Write a pseudo label for every record; what is there already is skipped.

    Returns:
        Counts: images, made, skipped, and pixels of background, foreground and ignored in the whole folder.

    Raises:
        UsageError: the folder was made with other settings, holds something else, or another process writes there.
        DataError: a saliency map is missing or has another size than its image.
        MachineError: the CRF is wanted and not installed, or its process died, or the disk refuses.
        Interrupted: a signal asked to stop; the labels made so far are whole.
    """
    wanted = wanted or Wanted()
    if config.data.saliency is not None:
        check_layers(config.data.saliency, tagged, "saliency map", NO_SALIENCY)
    effective = config.model_copy(update={"labels": labels_section(network, config.labels)})
    settings = settings_of(network, tagged, effective, checkpoint_sha256)
    sources = {record.name: source(record, config.data.saliency) for record in tagged.records}
    with output_folder(out, settings, sources, config, reporter, overwrite=wanted.overwrite) as stop:
        todo = [record for record in tagged.records if not _is_done(out, record, wanted)]
        forget(label_path(out, record.name) for record in todo)
        step = max(1, len(tagged) // max(1, wanted.overlays))
        pictured = {record.name for record in tagged.records[::step][: wanted.overlays]}
        names = frozenset(record.name for record in todo)
        maker = Maker(network.to(device).eval(), tagged, out, effective, device, wanted, pictured, names)
        label_remaining(
            "pseudo labels",
            tagged.records,
            names,
            maker,
            config,
            reporter,
            stop,
            scales=config.maps.scales,
            stride=network.backbone.stride,
            crf=config.labels.crf,
        )
        counts = {"images": len(tagged), **count_pixels(out, tagged.records)}
        write_manifest(out, settings, sources, counts)
    return {"made": len(todo), "skipped": len(tagged) - len(todo), **counts}


def settings_of(network: Network, tagged: TaggedSet, config: Config, checkpoint_sha256: str) -> dict[str, Any]:
    """All that decides the content of a pseudo-label folder but its images."""
    maps = config.maps.model_dump(mode="json", exclude={"batch_size"})
    return {
        "kind": "pseudo",
        "classes": list(tagged.classes),
        "split": tagged.split,
        "backbone": network.backbone.name,
        "checkpoint_sha256": checkpoint_sha256,
        **maps,
        **config.labels.model_dump(mode="json"),
        "saliency": config.data.saliency is not None,
        "supervision": list(joined(network.supervision or UNKNOWN, of_data(config.data, saliency=True))),
        "amp": config.run.amp,
    }


def labels_section(network: Network, section: LabelsSection) -> LabelsSection:
    """Effective settings: agreement needs a decoder, and its labels are opened as the order of the recipe says."""
    agreed = section.decoder and network.decoder is not None
    opening = opening_of(section, order="agree-then-refine", agreed=agreed)
    return section.model_copy(update={"decoder": agreed, "opening": opening})


class Maker:
    """Makes and writes those pseudo labels of batches that are to be made."""

    def __init__(
        self,
        network: Network,
        tagged: TaggedSet,
        out: Path,
        config: Config,
        device: torch.device,
        wanted: Wanted,
        pictured: set[str],
        todo: Collection[str],
    ) -> None:
        self.network = network
        self.tagged = tagged
        self.out = out
        self.config = config
        self.device = device
        self.wanted = wanted
        self.pictured = pictured
        self.todo = todo

    def jobs(
        self, batches: Iterable[ScaledBatch], crf: Callable[..., np.ndarray[Any, Any]]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Class maps of each batch; what remains to be done for an image, by its name.

        Args:
            batches: of images.
            crf: the name, then the arguments of a `Crf`.
        """
        for batch in batches:
            scores, opinions = self._read(batch)
            some = [i for i, record in enumerate(batch.records) if record.name in self.todo]
            for group in equal_sizes(batch.images, some, PIXELS_AT_ONCE.get(self.device.type, MANY_PIXELS)):
                refined = self._refine(batch, group, scores, opinions).to("cpu")
                for b, i in enumerate(group):
                    record = batch.records[i]
                    scores_Rhw = scores.of_image(i).cpu()
                    finish = partial(self._finish, record, batch.images[i], scores_Rhw, refined.select([b]))
                    yield record.name, partial(finish, partial(crf, record.name))

    def _refine(
        self, batch: ScaledBatch, group: Sequence[int], scores: PresentMaps, opinions: Sequence[Tensor] | None
    ) -> Refined:
        """What `refine_scores` makes of a group of images of one size."""
        size = working_size(*batch.images[group[0]].shape[:2])
        images = [_in_unit_range(batch.images[i].to(self.device, non_blocking=True)) for i in group]
        log_BCHW = None
        if opinions is not None:
            log_BCHW = resized(torch.stack([opinions[i] for i in group]), size).clamp_min(1e-30).log()
        return refine_scores(
            resized(torch.stack(images), size),
            scores.select(group),
            self.config.labels,
            log_probabilities_BChw=log_BCHW,
        )

    def _present(self, records: Sequence[Record]) -> Tensor:
        """(B, K) bool, on the host."""
        return torch.from_numpy(np.stack([self.tagged.present(record) for record in records]))

    def _read(self, batch: ScaledBatch) -> tuple[PresentMaps, Sequence[Tensor] | None]:
        """Class scores and, from the same passes, the decoder's probabilities (C, H, W) of each image, or None."""
        opinion = self._opinion(batch) if self.config.labels.decoder else None
        with autocast(self.config.run, self.device):
            _, scores = multiscale_scores(
                self.network,
                batch.at_scales(self.device),
                self._present(batch.records),
                MapSettings.of(self.config.maps),
                flip=self.config.maps.flip,
                opinion=opinion,
            )
        return scores, None if opinion is None else opinion.mean()

    def _opinion(self, batch: ScaledBatch) -> LabelProbabilities:
        sizes = [(image.shape[0], image.shape[1]) for image in batch.images]
        return LabelProbabilities(sizes)

    def _finish(
        self,
        record: Record,
        image_HW3: Tensor,
        scores_Rhw: Tensor,
        refined: Refined,
        crf: Crf,
    ) -> None:
        """Label, scores and picture of an image, on the CPU."""
        size = (image_HW3.shape[0], image_HW3.shape[1])
        saliency_HW = self._saliency(record, size)
        label_1HW = complete(
            refined,
            size,
            self.config.labels,
            saliency_BHW=None if saliency_HW is None else saliency_HW[None],
            images_HW3=[image_HW3.numpy()] if self.config.labels.crf else None,
            crf=crf,
        )
        self._write(record, image_HW3.numpy(), label_1HW[0].numpy(), scores_Rhw)

    def _saliency(self, record: Record, size: tuple[int, int]) -> Tensor | None:
        if self.config.data.saliency is None:
            return None
        return torch.from_numpy(read_layer(self.config.data.saliency, record, size))

    def _write(
        self,
        record: Record,
        image_HW3: np.ndarray[Any, Any],
        label_HW: np.ndarray[Any, Any],
        scores_Rhw: Tensor,
    ) -> None:
        if self.wanted.scores:
            write_scores(_scores_path(self.out, record), scores_Rhw, record.tags, label_HW.shape)
        if record.name in self.pictured:
            names = ", ".join(self.tagged.classes[tag] for tag in record.tags) or "no class"
            tiles = [(names, image_HW3), ("pseudo label", overlay(image_HW3, label_HW))]
            sheet_HW3 = with_key(contact_sheet(tiles, 2, image_HW3.shape[1]), label_HW, self.tagged.classes)
            write_jpeg(self.out / "overlays" / f"{record.name}.jpg", sheet_HW3)
        write_mask(label_path(self.out, record.name), label_HW)  # last: its presence says that the image is done


def _in_unit_range(image_HW3: Tensor) -> Tensor:
    """(3, H, W) float32 in [0, 1] from 8 bits."""
    return image_HW3.permute(2, 0, 1).float() / 255


def write_scores(path: Path, scores_Rhw: Tensor, tags: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Write the scores of the present classes as 8 bits: ``scores`` (R, h, w), ``classes`` (R,), ``size`` (H, W)."""
    scores = (scores_Rhw.clamp(0, 1) * 255).round().byte().cpu().numpy()
    packed = io.BytesIO()
    np.savez_compressed(packed, scores=scores, classes=np.array(tags, dtype=np.int64), size=np.array(size))
    write_whole(path, packed.getvalue())


def _is_done(out: Path, record: Record, wanted: Wanted) -> bool:
    return label_path(out, record.name).is_file() and (not wanted.scores or _scores_path(out, record).is_file())


def _scores_path(out: Path, record: Record) -> Path:
    return out / "scores" / f"{record.name}.npz"
