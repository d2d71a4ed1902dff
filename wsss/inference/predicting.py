"""`wsss predict`: masks of plain images. Tags are never used.

The network segments one batch while threads draw and write earlier images, and processes run their dense CRF.

Shape suffixes: C = K + 1 label channels, S of them seen in an image with the background first, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss.config import Config
from wsss.data.masks import write_mask
from wsss.data.records import Record
from wsss.data.scaled import ScaledBatch
from wsss.inference.remaining import label_remaining
from wsss.labels.crf import Crf, CrfSettings, crf_labels, crf_probabilities
from wsss.machine import autocast
from wsss.models.averaged import label_probabilities
from wsss.models.network import Network
from wsss.outputs.folder import count_pixels, label_path, output_folder, source, write_manifest
from wsss.outputs.pictures import overlay, with_key, write_jpeg
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
        Counts: images, made, skipped, and pixels of background, foreground and ignored in all of them.

    Raises:
        UsageError: the network has no decoder, or the folder is in use or was made with other settings.
        MachineError: the CRF is wanted and not installed, or its process died, or the disk refuses.
        Interrupted: a signal asked to stop; the masks made so far are whole.
    """
    settings: dict[str, Any] = {
        "kind": "segmentation",
        "classes": list(network.classes),
        "split": split,
        "backbone": network.backbone.name,
        "checkpoint_sha256": checkpoint_sha256,
        "supervision": list(network.supervision),
        **config.predict.model_dump(mode="json"),
        "amp": config.run.amp,
    }
    network.require_decoder()
    untagged = [replace(record, tags=()) for record in records]
    sources = {record.name: source(record) for record in untagged}
    with output_folder(out, settings, sources, config, reporter, overwrite=overwrite) as stop:
        todo = [record for record in untagged if not label_path(out, record.name).is_file()]
        names = frozenset(record.name for record in todo)
        label_remaining(
            "masks",
            untagged,
            names,
            Predictor(network.to(device).eval(), out, config, device, overlays, names),
            config,
            reporter,
            stop,
            scales=config.predict.scales,
            stride=network.backbone.stride,
            crf=config.predict.crf,
        )
        made = {"images": len(records), "made": len(todo), "skipped": len(records) - len(todo)}
        counts = {**made, **count_pixels(out, records)}
        write_manifest(out, settings, sources, counts)
    return counts


@dataclass(frozen=True, slots=True)
class Predictor:
    """Segments batches and writes those masks that are to be made."""

    network: Network
    out: Path
    config: Config
    device: torch.device
    overlays: bool
    todo: Collection[str]

    def jobs(
        self, batches: Iterable[ScaledBatch], crf: Callable[..., np.ndarray[Any, Any]]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Class probabilities of each batch; what remains to be done for an image, by its name.

        Args:
            batches: of images.
            crf: the name, then the arguments of a `Crf`.
        """
        for batch in batches:
            sizes = [(image.shape[0], image.shape[1]) for image in batch.images]
            with autocast(self.config.run, self.device):
                probabilities = label_probabilities(
                    self.network, batch.at_scales(self.device), sizes, flip=self.config.predict.flip
                )
            for record, image_HW3, probabilities_CHW in zip(batch.records, batch.images, probabilities, strict=True):
                if record.name not in self.todo:
                    continue
                label_HW = probabilities_CHW.argmax(dim=0).byte().cpu().numpy()
                seen = Seen.of(probabilities_CHW, label_HW) if self.config.predict.crf else None
                finish = partial(self._finish, record, image_HW3.numpy(), label_HW, seen)
                yield record.name, partial(finish, partial(crf, record.name))

    def _finish(
        self,
        record: Record,
        image_HW3: np.ndarray[Any, Any],
        label_HW: np.ndarray[Any, Any],
        seen: Seen | None,
        crf: Crf,
    ) -> None:
        """Refine the label map where the CRF is wanted, draw it and write it."""
        if seen is not None:
            label_HW = seen.refined(image_HW3, crf)
        if self.overlays:
            drawn_HW3 = with_key(overlay(image_HW3, label_HW), label_HW, self.network.classes)
            write_jpeg(self.out / "overlays" / f"{record.name}.jpg", drawn_HW3)
        write_mask(label_path(self.out, record.name), label_HW)  # last: its presence says that it is done


@dataclass(frozen=True, slots=True)
class Seen:
    """The classes that an image seems to hold: small enough to wait for the CRF, however many classes there are.

    Attributes:
        index_S: uint8, their class indices.
        scores_SHW: their probabilities, in [0, 1].
    """

    index_S: np.ndarray[Any, Any]
    scores_SHW: np.ndarray[Any, Any]

    @classmethod
    def of(cls, probabilities_CHW: Tensor, label_HW: np.ndarray[Any, Any]) -> Seen:
        """Those of the label map and the background, from the probabilities of all classes on any device."""
        index_S = np.union1d(np.zeros(1, dtype=np.uint8), label_HW)
        return cls(index_S, probabilities_CHW[index_S.tolist()].float().cpu().numpy())

    def refined(self, image_HW3: np.ndarray[Any, Any], crf: Crf = crf_probabilities) -> np.ndarray[Any, Any]:
        """Label map of the dense CRF over these classes, (H, W) uint8."""
        every_K = np.ones(len(self.index_S) - 1, dtype=np.bool_)
        rank_HW = crf_labels(image_HW3, self.scores_SHW, every_K, settings=CrfSettings(), crf=crf)
        refined_HW: np.ndarray[Any, Any] = self.index_S[rank_HW]
        return refined_HW
