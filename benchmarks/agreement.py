"""Pseudo labels that class maps and decoder agree on, by what is refined, opened or left to the CRF.

    python benchmarks/agreement.py RUN --data DIR --split train --limit 110 --scales 320

RUN is one of `wsss train-seg`. Maps and decoder are read once, by the run's own settings; each row then makes of them
what `wsss make-pseudo` (which does as the row "agreement refined") or a training step ("maps refined") would. An
ignored pixel counts as wrong in the mIoU. Masks are opened for scoring alone.

Shape suffixes: C = K + 1 label channels, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from torch.nn import functional as F

from wsss.config import LabelsSection
from wsss.data.dataset import open_data
from wsss.data.masks import read_mask
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.labels.agreement import Confidence
from wsss.labels.completion import remove_speckles
from wsss.labels.crf import CrfSettings, crf_labels
from wsss.labels.recipe import agree, complete, refine, refine_to_image
from wsss.machine import pick_device
from wsss.maps.generate import multiscale_scores
from wsss.maps.recorder import MapSettings
from wsss.models.averaged import LabelProbabilities
from wsss.models.checkpoint import load_network

Reading = tuple[Tensor, Tensor, Tensor, Tensor]
"""Image (3, H, W), class scores (K, h, w), on the host present classes (K,), the decoder's probabilities (C, H, W)."""

Row = Callable[[Reading, LabelsSection], Tensor]
"""What makes a label map (H, W) of them."""


def agreement_refined(reading: Reading, section: LabelsSection) -> Tensor:
    """What `wsss make-pseudo` does."""
    joint_CHW = joint(reading, section)
    return complete(joint_CHW[1:], reading[2], section, background_HW=joint_CHW[0])


def joint(reading: Reading, section: LabelsSection) -> Tensor:
    """The probabilities (C, H, W) that maps and decoder agree on, refined as the settings want."""
    image_3HW, scores_Khw, present_K, opinion_CHW = reading
    probabilities_BKHW, background_BHW = refine_to_image(
        image_3HW[None], scores_Khw[None], present_K[None], section, opinion_CHW[None]
    )
    assert background_BHW is not None
    return torch.cat([background_BHW, probabilities_BKHW[0]])


def maps_refined(reading: Reading, section: LabelsSection) -> Tensor:
    """What a training step does."""
    image_3HW, scores_Khw, present_K, opinion_CHW = reading
    size, present_BK = (image_3HW.shape[1], image_3HW.shape[2]), present_K[None]
    scores_BKHW = F.interpolate(scores_Khw[None], size=size, mode="bilinear", align_corners=False)
    scores_BKHW = refine(image_3HW[None], scores_BKHW, present_BK, section)
    joint_CHW = agree(scores_BKHW, present_BK, opinion_CHW[None], section)[0]
    return complete(joint_CHW[1:], present_K, section, background_HW=joint_CHW[0])


def decoder_alone(reading: Reading, section: LabelsSection) -> Tensor:
    """The decoder's likeliest of the present classes, where it is likely enough."""
    _, _, present_K, opinion_CHW = reading
    present_C = torch.cat([present_K.new_ones(1), present_K]).to(opinion_CHW.device)
    among_CHW = opinion_CHW * present_C[:, None, None]
    among_CHW /= among_CHW.sum(dim=0)
    best_HW, class_HW = among_CHW[1:].max(dim=0)
    return Confidence(among_CHW[0], section.confidence).label(best_HW, (class_HW + 1).byte())


def maps_alone(reading: Reading, section: LabelsSection) -> Tensor:
    """The maps, refined, by the background rule of the run, opened as it wants."""
    image_3HW, scores_Khw, present_K, _ = reading
    scores_BKHW, _ = refine_to_image(image_3HW[None], scores_Khw[None], present_K[None], section)
    return complete(scores_BKHW[0], present_K, section)


def by_crf(reading: Reading, section: LabelsSection) -> Tensor:
    """The dense CRF over the agreement, in the place of PAMR; it ignores nothing."""
    image_3HW, _, present_K, _ = reading
    none = section.model_copy(update={"pamr_iterations": 0})
    image_HW3 = (image_3HW.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    scores_CHW = joint(reading, none).cpu().numpy()
    return torch.from_numpy(crf_labels(image_HW3, scores_CHW, present_K.numpy(), settings=CrfSettings()))


def opened(row: Row, reading: Reading, section: LabelsSection) -> Tensor:
    """A row's label map after the opening."""
    return remove_speckles(row(reading, section), section.opening)


def with_settings(row: Row, settings: Mapping[str, object], reading: Reading, section: LabelsSection) -> Tensor:
    """A row under other settings."""
    return row(reading, section.model_copy(update=dict(settings)))


def rows() -> dict[str, Row]:
    """All there are; those of the CRF where it is installed."""
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
    limit: Annotated[int, typer.Option(help="Label only so many images, evenly spread; 0 labels all.")] = 0,
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
    images = ScaledImages(tagged.records, sides, network.backbone.stride, batch_size=8)
    for batch in track(load_batches(images, 0), f"labels of {tagged.split}", len(images)):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        opinion = LabelProbabilities([(image.shape[0], image.shape[1]) for image in batch.images])
        at_scales = batch.at_scales(where)
        _, scores_BKhw = multiscale_scores(network, at_scales, present_BK, settings, flip=True, opinion=opinion)
        for b, (record, heard_CHW) in enumerate(zip(batch.records, opinion.mean(), strict=True)):
            image_3HW = batch.images[b].to(where).permute(2, 0, 1).float() / 255
            truth_HW = read_mask(tagged.mask_path(record) or Path())
            for name, row in chosen.items():
                label_HW = row((image_3HW, scores_BKhw[b], present_BK[b], heard_CHW), config.labels)
                matrices[name].update(label_HW, truth_HW)
    print(f"### {tagged.split}: {len(tagged)} images, {scales} px, flip, {path} ({machine(where)})\n")
    cells = [
        [name, f"{100 * matrix.mean_iou():.1f}", f"{100 * matrix.coverage():.1f}"] for name, matrix in matrices.items()
    ]
    print(table(["labels", "mIoU %", "coverage %"], cells))


if __name__ == "__main__":
    typer.run(main)
