"""Pseudo labels of photos that all hold one class, without a photo that does not: the table of RESULTS.md.

    python benchmarks/objects.py --data DIR --weights FILE --split val --of horse --of dog

Tags say nothing there: each photo has the class. The backbone has its initial weights, its readout is not trained.
Masks are opened for scoring alone. A pixel that is ignored counts as wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import table

from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import IGNORE_INDEX
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.labeller import Labeller
from wsss.models.network import build_network

WAYS = {
    "all foreground": None,
    "attention, blocks 9-11": {"maps.method": "attention", "maps.start_layer": 9},
    "objects": {"maps.method": "objects"},
    "objects, not spread": {"maps.method": "objects", "maps.spread": 0},
}


def main(
    data: Annotated[Path, typer.Option()],
    weights: Annotated[Path, typer.Option()],
    of: Annotated[list[str], typer.Option(help="A class, of which all photos are labelled.")],
    split: str = "val",
    images: Annotated[int, typer.Option(help="Of each class; 0 takes all.")] = 0,
    backbone: str = "deit_tiny_patch16_224",
) -> None:
    """Label the photos of each class in every way and print mIoU over the class and the background."""
    torch.manual_seed(0)
    tagged = open_data(data, split=split)
    rows = []
    for name in of:
        index = tagged.classes.index(name)
        records = [record for record in tagged.records if index in record.tags][: images or None]
        network = build_network(backbone, [name], str(weights), decoder=False)
        for way, flags in WAYS.items():
            matrix, covered, pixels = ConfusionMatrix(2), 0, 0
            labeller = None
            if flags is not None:
                config = resolve(flags={"maps.scales": (320,), **flags})
                labeller = Labeller(network, config, torch.device("cpu"))
            for record in records:
                truth_HW = tagged.truth(record)
                if truth_HW is None:
                    continue
                image_HW3 = read_image(record.image)
                ones_HW = np.ones(truth_HW.shape, np.uint8)
                label_HW = ones_HW if labeller is None else labeller.label(image_HW3, [name])
                objects_HW = np.where(truth_HW == IGNORE_INDEX, IGNORE_INDEX, truth_HW == index + 1).astype(np.uint8)
                matrix.update(label_HW, objects_HW)
                covered += int((label_HW != IGNORE_INDEX).sum())
                pixels += label_HW.size
            ious = [f"{100 * value:.1f}" for value in matrix.per_class_iou()]
            share = f"{covered / pixels:.2f}"
            rows.append([name, str(len(records)), way, f"{100 * matrix.mean_iou():.1f}", *ious, share])
    typer.echo(table(["class", "photos", "labels", "mIoU", "background", "the class", "coverage"], rows))


if __name__ == "__main__":
    typer.run(main)
