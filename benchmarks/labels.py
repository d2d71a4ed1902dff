"""Pseudo-label mIoU and coverage of every background rule: the label table of RESULTS.md.

    python benchmarks/labels.py RUN --data DIR --split train --saliency DIR/Saliency \
        --method getam --start-layer 6 --gamma 0.5 --spread 1

Class scores are made and refined once; each rule then completes them as `wsss make-pseudo` does. An ignored pixel
counts as wrong in the mIoU. Masks are read for scoring only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import few, machine
from rich.progress import track

from wsss.config import LabelsSection
from wsss.data.dataset import open_data
from wsss.data.layers import read_layer
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.labels.recipe import complete, refine_scores, resized, working_size
from wsss.machine import pick_device
from wsss.maps.generate import multiscale_scores
from wsss.maps.recorder import MapSettings
from wsss.models.checkpoint import load_network

BANDS = ((0.25, 0.55), (0.40, 0.50), (0.50, 0.65), (0.60, 0.72), (0.66, 0.76), (0.66, 0.66), (0.70, 0.70), (0.74, 0.74))
RULES = {
    **{f"power {exponent}": LabelsSection(background="power", exponent=exponent) for exponent in (32, 8, 1)},
    **{f"band {low:.2f}-{high:.2f}": LabelsSection(background="band", low=low, high=high) for low, high in BANDS},
    "band 0.70-0.70, no opening": LabelsSection(background="band", low=0.7, high=0.7, opening=0),
}


def main(
    run: Path,
    data: Annotated[Path, typer.Option()],
    split: str = "train",
    saliency: Path | None = None,
    method: str = "getam",
    coupling: str = "released",
    start_layer: int = 0,
    gamma: float = 1.0,
    spread: int = 0,
    scales: str = "224,320",
    flip: bool = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    limit: Annotated[int, typer.Option(help="Number of images to label, evenly spread; 0 labels all.")] = 0,
) -> None:
    """Print one table."""
    where = pick_device(device)
    network, _, path = load_network(run)
    network.to(where)
    tagged = few(open_data(data, split=split, classes=network.classes), limit)
    settings = MapSettings(
        method=method,  # type: ignore[arg-type]
        coupling=coupling,  # type: ignore[arg-type]
        start_layer=start_layer,
        gamma=gamma,
        spread=spread,
    )
    rows = [(name, False) for name in RULES] + ([(name, True) for name in RULES] if saliency else [])
    matrices = {row: ConfusionMatrix(len(tagged.classes) + 1) for row in rows}
    sides = tuple(int(side) for side in scales.split(","))
    images = ScaledImages(tagged.records, sides, network.backbone.stride, 2**20, images=True)
    for batch in track(load_batches(images, 0), f"labels of {tagged.split}", len(images)):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        _, scores = multiscale_scores(network, batch.at_scales(where), present_BK, settings, flip=flip)
        for b, record in enumerate(batch.records):
            image_3HW = batch.images[b].to(where).permute(2, 0, 1).float() / 255
            size = (image_3HW.shape[1], image_3HW.shape[2])
            images_13hw = resized(image_3HW[None], working_size(*size))
            refined = refine_scores(images_13hw, scores.select([b]), LabelsSection())
            truth_HW = tagged.truth(record)
            assert truth_HW is not None
            for name, salient in rows:
                saliency_1HW = None
                if salient and saliency is not None:
                    saliency_1HW = torch.from_numpy(read_layer(saliency, record, truth_HW.shape)).to(where)[None]
                ruled = replace(refined, opening=RULES[name].opening)
                (label_HW,) = complete(ruled, size, RULES[name], saliency_BHW=saliency_1HW)
                matrices[name, salient].update(label_HW, truth_HW)
    print(f"\n### {tagged.split}: {len(tagged)} images, {method} {coupling} from block {start_layer}, "
          f"gamma {gamma:g}, spread {spread}, "
          f"{scales} px, flip {'on' if flip else 'off'}, PAMR, {path} ({machine(where)})\n")  # fmt: skip
    print("| rule | mIoU % | coverage % |\n|---|---|---|")
    for (name, salient), matrix in matrices.items():
        label = f"{name} + saliency" if salient else name
        print(f"| {label} | {100 * matrix.mean_iou():.1f} | {100 * matrix.coverage():.1f} |")


if __name__ == "__main__":
    typer.run(main)
