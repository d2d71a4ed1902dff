"""mIoU of a training from pseudo labels, some of which people corrected: the table of benchmarks/results/review.md.

    python benchmarks/corrected.py OUT --data DIR --labels LABELS --init CLS -c PRESET --numbers 0,10,50,200

The masks of the data set take the part of people. They are those of the first images in a random order, or, with
``--by-review``, in the order of ``wsss review`` of the labels. Finished trainings in OUT are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.masks import write_mask
from wsss.data.truth import read_truth
from wsss.inference.score import score_split
from wsss.machine import prepare_device
from wsss.models.checkpoint import load_network
from wsss.training.start import train_segmenter


class Lines:
    """A reporter that prints remarks."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    labels: Annotated[Path, typer.Option(help="Folder of make-pseudo.")],
    init: Annotated[Path, typer.Option(help="Run of train-cls.")],
    config: Annotated[str | None, typer.Option("-c")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set")] = None,
    numbers: str = "0,10,50,200",
    split: str = "train",
    by_review: bool = False,
) -> None:
    """Train once for each number; print a row each."""
    flags = {"data.root": data, "data.train_split": split}
    settings = resolve(config, assignments or (), flags)
    tagged = open_data(data, split=split)
    order = np.random.default_rng(0).permutation(len(tagged)).tolist()
    if by_review:
        from wsss.inference.review import review_queue

        places = {record.name: i for i, record in enumerate(tagged.records)}
        order = [places[one.name] for one in review_queue(labels)]
    val = open_data(data, split="val")
    for number in map(int, numbers.split(",")):
        run = out / f"{'review' if by_review else 'random'}-{number}"
        drawn = out / f"{run.name}-masks"
        for i in order[:number]:
            write_mask(drawn / f"{tagged.records[i].name}.png", read_truth(tagged, tagged.records[i]))
        if not (run / "done").is_file():
            train_segmenter(settings, run, Lines(), labels=labels, init=init, corrected=drawn if number else None)
            (run / "done").touch()
        network, trained, _ = load_network(run)
        device = prepare_device(trained.run)
        figure = score_split(network.to(device), val, trained, device).mean_iou()
        print(json.dumps({"order": run.name.partition("-")[0], "corrected": number, "mean_iou": round(figure, 4)}))


if __name__ == "__main__":
    typer.run(main)
