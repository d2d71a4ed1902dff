"""Segmentation from few images, by which blocks `train-seg` trains: the table of results/few_photos.md.

    python benchmarks/few_segmentation.py OUT --data DIR --weights FILE --size 200 --seeds 0,1,2

Each seed is the training set of `few_images.py` of that size: a classifier by the defaults with this seed, then one
round of `train-seg`, whose own seed is 0, by each mode of ``--modes`` (values of ``segment.finetune``). mIoU is of
``choose``, every third image of ``train`` that is in no training set; with ``--score val`` of ``val``. Finished rows
are kept and unfinished trainings are resumed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from few_images import subset
from measuring import CPU, machine

from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.inference.score import score_split
from wsss.models.network import Network
from wsss.training.start import (
    SILENT,
    resume_classifier,
    resume_segmenter,
    train_classifier,
    train_segmenter,
)


def with_choose(folder: Path) -> Path:
    """Add a split ``choose``: every third image of ``train`` that is not in ``train_aug``."""
    lists = next(folder.glob("ImageSets/**/train_aug.txt")).parent
    known = set((lists / "train_aug.txt").read_text().split())
    left = [name for name in (lists / "train.txt").read_text().split() if name not in known]
    (lists / "choose.txt").write_text("".join(f"{name}\n" for name in left[::3]))
    return folder


def trained(run: Path, flags: dict[str, Any], init: Path | None, *, true_masks: bool = False) -> Network:
    """A finished training, new or resumed: of a classifier, or of a segmenter from ``init``."""
    if (run / "last.pt").is_file():
        return resume_classifier(run, SILENT) if init is None else resume_segmenter(run, SILENT)
    config = resolve(None, (), flags)
    return (
        train_classifier(config, run)
        if init is None
        else train_segmenter(config, run, init=init, true_masks=true_masks)
    )


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    weights: Annotated[Path, typer.Option()],
    size: int = 200,
    seeds: str = "0,1,2",
    modes: str = "all,top",
    score: str = "choose",
) -> None:
    """Print one row of JSON a training, and keep it in OUT/rows."""
    print(machine(CPU), flush=True)
    (out / "rows").mkdir(parents=True, exist_ok=True)
    for seed in (int(text) for text in seeds.split(",")):
        folder = with_choose(subset(data, out / "data" / f"{size}-{seed}", size, seed))
        common = {"data.root": folder, "run.workers": 0}
        first = {"run.seed": seed, "classify.validate_every": 1000}
        model = {"model.backbone": "deit_tiny_patch16_224", "model.weights": str(weights)}
        cls = out / "runs" / f"{size}-{seed}-cls"
        trained(cls, common | model | first, None)
        for mode in modes.split(","):
            row = out / "rows" / f"{size}-{seed}-{mode}-{score}.json"
            if not row.is_file():
                flags = common | {"data.val_split": "choose", "segment.rounds": 1, "segment.validate_every": 4}
                network = trained(
                    out / "runs" / f"{size}-{seed}-{mode}", flags | {"segment.finetune": mode}, cls
                ).eval()
                config = resolve(None, (), common)
                matrix = score_split(network, open_data(folder, split=score, classes=network.classes), config, CPU)
                figures = {"size": size, "seed": seed, "mode": mode, "split": score, "mean_iou": matrix.mean_iou()}
                row.write_text(json.dumps(figures) + "\n")
            print(row.read_text().strip(), flush=True)


if __name__ == "__main__":
    typer.run(main)
