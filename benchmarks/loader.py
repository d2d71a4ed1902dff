"""Images/s of the loader with 0, 1, ... worker processes, against images/s of the classification step.

    python benchmarks/loader.py --data DIR --split train -c voc-animals-cpu

An image is decoded, cropped, flipped and jittered as in training. The clock starts after each worker's first batch.
"""

from __future__ import annotations

import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer
from measuring import Times, machine, table, take_turns
from step import make_step, random_batch

from wsss.config import Config, resolve
from wsss.data.augment import StepBatches, TrainingImages
from wsss.data.dataset import open_data
from wsss.data.loading import read_ahead
from wsss.data.records import TaggedSet
from wsss.machine import pick_device

WORKERS = (0, 1, 2)


def loading_rate(tagged: TaggedSet, config: Config, workers: int, steps: int) -> float:
    """Images/s over ``steps`` batches."""
    images = TrainingImages(tagged, config.augment, seed=config.run.seed)
    first = workers + 1
    batches = StepBatches(len(images), config.classify.batch_size, 0, first + steps, config.run.seed)
    loader = iter(read_ahead(images, workers, batches=batches))
    for _ in islice(loader, first):
        pass
    began = time.perf_counter()
    count = sum(len(batch["image"]) for batch in loader)
    return count / (time.perf_counter() - began)


def loading_rates(tagged: TaggedSet, config: Config, steps: int, rounds: int) -> dict[int, list[float]]:
    """Images/s of every round, by number of workers; each round measures every number once."""
    rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers in WORKERS:
            rates[workers].append(loading_rate(tagged, config, workers, steps))
    return rates


def step_times(config: Config, classes: int, device: torch.device, rounds: int) -> Times:
    """Seconds of the classification step on random images."""
    batches = [random_batch(config.classify.batch_size, classes, config.augment.size, device, seed=0)]
    return take_turns({"step": make_step("classify", config, batches, device)}, rounds, device)["step"]


def main(
    data: Annotated[Path, typer.Option()],
    split: str = "train",
    config: Annotated[str, typer.Option("-c", "--config", help="A preset or YAML file.")] = "voc-animals-cpu",
    assignments: Annotated[list[str] | None, typer.Option("--set")] = None,
    device: str = "auto",
    steps: Annotated[int, typer.Option(help="Batches a measurement.")] = 20,
    rounds: int = 5,
) -> None:
    """Print one table."""
    settings = resolve(config, assignments or (), {"model.weights": "none"})
    tagged = open_data(data, split=split)
    batch_size = min(settings.classify.batch_size, len(tagged))
    where = pick_device(device)
    times = step_times(settings, len(tagged.classes), where, rounds)
    taken = settings.classify.batch_size / times.median
    rates = loading_rates(tagged, settings, steps, rounds)
    print(f"### Loader, {config}: {len(tagged)} images of {split}, {settings.augment.size} px, batches of "
          f"{batch_size} ({machine(where)})\n")  # fmt: skip
    rows = [
        [
            str(workers),
            f"{statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})",
            f"{statistics.median(found) / taken:.1f}",
        ]
        for workers, found in rates.items()
    ]
    print(table(["workers", "images/s (range)", "loader / step"], rows))
    print(f"\nThe classification step processes {taken:.1f} images/s. Target: loader / step of at least 1.0.")


if __name__ == "__main__":
    typer.run(main)
