"""Pseudo labels that class maps and decoder agree on: what to refine with PAMR, what to open, and the CRF instead.

    python benchmarks/agreement.py RUN --data DIR --split train --limit 110 --scales 320

RUN is a run of `wsss train-seg`. Class maps and decoder outputs are computed once, with the settings of the run. Each
row then makes label maps from them; "agreement refined" is what `wsss make-pseudo` does, "maps refined, opened" is what
a training step does. An ignored pixel counts as wrong in the mIoU. Masks are read for scoring only.

Shape suffixes: C = K + 1 label channels, R present classes, H x W pixels, h x w any grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import few, machine, table
from rich.progress import track
from torch import Tensor

from wsss.config import LabelsSection
from wsss.data.dataset import open_data
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.labels.agreement import Confidence
from wsss.labels.bands import probabilities_at
from wsss.labels.completion import complete_labels, remove_speckles
from wsss.labels.recipe import Order, complete, label_images, refine_scores, resized, working_size
from wsss.machine import pick_device
from wsss.maps.generate import multiscale_scores
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings
from wsss.models.averaged import LabelProbabilities, decoder_grid
from wsss.models.checkpoint import load_network


@dataclass(frozen=True)
class Reading:
    """One image and the network's outputs for it, from which every row makes a label map.

    Attributes:
        image_13hw: in [0, 1], at the working size of the refinement.
        size: (H, W) of the photo.
        scores: class scores, on the patch grid.
        log_1Chw: the decoder's log-probabilities of all classes.
    """

    image_13hw: Tensor
    size: tuple[int, int]
    scores: PresentMaps
    log_1Chw: Tensor


Row = Callable[[Reading, LabelsSection], Tensor]
"""A function that makes a label map (H, W) from a reading."""


def agreed(order: Order, reading: Reading, section: LabelsSection) -> Tensor:
    """The labels that maps and decoder agree on, without the opening."""
    refined = refine_scores(
        reading.image_13hw, reading.scores, section, log_probabilities_BChw=reading.log_1Chw, order=order
    )
    return complete(replace(refined, opening=0), reading.size, section)[0]


agreement_refined = partial(agreed, "agree-then-refine")
"""What `wsss make-pseudo` does."""

maps_refined = partial(agreed, "refine-then-agree")
"""What a training step does, before its opening."""


def decoder_alone(reading: Reading, section: LabelsSection) -> Tensor:
    """The present class of the highest decoder probability; IGNORE_INDEX where that is below the confidence."""
    classes_R = reading.scores.class_R
    among_CHW = probabilities_at(reading.log_1Chw[0], reading.size, [0, *(classes_R + 1).tolist()])
    among_CHW /= among_CHW.sum(dim=0)
    scores = reading.scores.with_values(among_CHW[1:])
    rule = Confidence(section.confidence)
    return complete_labels(scores, reading.size, background=rule, background_Bhw=among_CHW[:1], opening=0)[0]


def maps_alone(reading: Reading, section: LabelsSection) -> Tensor:
    """The refined maps, completed by the background rule and the opening of the run."""
    return label_images(reading.image_13hw, reading.scores, reading.size, section)[0]


def by_crf(reading: Reading, section: LabelsSection) -> Tensor:
    """The dense CRF over the agreement, instead of PAMR; no pixel is ignored."""
    none = section.model_copy(update={"pamr_iterations": 0})
    refined = refine_scores(reading.image_13hw, reading.scores, none, log_probabilities_BChw=reading.log_1Chw)
    image_HW3 = (resized(reading.image_13hw, reading.size)[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    return complete(refined, reading.size, none, images_HW3=[image_HW3])[0]


def opened(row: Row, reading: Reading, section: LabelsSection) -> Tensor:
    """The label map of a row, opened."""
    return remove_speckles(row(reading, section)[None], section.opening)[0]


def with_settings(row: Row, settings: Mapping[str, object], reading: Reading, section: LabelsSection) -> Tensor:
    """The label map of a row with other settings."""
    return row(reading, section.model_copy(update=dict(settings)))


def rows() -> dict[str, Row]:
    """All rows by name; those with the CRF only if it is installed."""
    plain: dict[str, Row] = {
        "maps alone": maps_alone,
        "decoder alone": decoder_alone,
        "maps refined": maps_refined,
        "maps refined, opened": partial(opened, maps_refined),
        "agreement refined": agreement_refined,
        "agreement refined, opened": partial(opened, agreement_refined),
        "nothing refined": partial(with_settings, agreement_refined, {"pamr_iterations": 0}),
    }
    for key, values in {"softness": (0.05, 0.2), "confidence": (0.5, 0.7, 0.8)}.items():
        for value in values:
            plain[f"agreement refined, {key} {value:g}"] = partial(with_settings, agreement_refined, {key: value})
    return {**plain, "agreement, CRF for PAMR": by_crf} if find_spec("pydensecrf") else plain


def main(
    run: Path,
    data: Annotated[Path, typer.Option()],
    split: str = "train",
    scales: Annotated[str, typer.Option(help="Sides in pixels, commas between.")] = "320",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    limit: Annotated[int, typer.Option(help="Number of images to label, evenly spread; 0 labels all.")] = 0,
) -> None:
    """Print one table."""
    where = pick_device(device)
    network, config, path = load_network(run)
    network.to(where)
    network.require_decoder()
    tagged = few(open_data(data, split=split, classes=network.classes), limit)
    chosen = rows()
    matrices = {name: ConfusionMatrix(len(tagged.classes) + 1) for name in chosen}
    settings, sides = MapSettings.of(config.maps), tuple(int(side) for side in scales.split(","))
    images = ScaledImages(tagged.records, sides, network.backbone.stride, 2**20, images=True)
    for batch in track(load_batches(images, 0), f"labels of {tagged.split}", len(images)):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        at_scales = batch.at_scales(where)
        decoder = LabelProbabilities(decoder_grid(network, at_scales))
        _, scores = multiscale_scores(network, at_scales, present_BK, settings, flip=True, decoder=decoder)
        log_BChw = decoder.log_mean()
        for b, (record, size) in enumerate(zip(batch.records, batch.sizes, strict=True)):
            image_13HW = batch.images[b].to(where).permute(2, 0, 1)[None].float() / 255
            image_13hw = resized(image_13HW, working_size(*size))
            truth_HW = tagged.truth(record)
            assert truth_HW is not None
            for name, row in chosen.items():
                label_HW = row(Reading(image_13hw, size, scores.select([b]), log_BChw[b : b + 1]), config.labels)
                matrices[name].update(label_HW, truth_HW)
    print(f"### {tagged.split}: {len(tagged)} images, {scales} px, flip, {path} ({machine(where)})\n")
    cells = [
        [name, f"{100 * matrix.mean_iou():.1f}", f"{100 * matrix.coverage():.1f}"] for name, matrix in matrices.items()
    ]
    print(table(["labels", "mIoU %", "coverage %"], cells))


if __name__ == "__main__":
    typer.run(main)
