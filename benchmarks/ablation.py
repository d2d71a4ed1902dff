"""Effect of each part of the recipe on VOC animals: the ablation table of RESULTS.md.

    python benchmarks/ablation.py OUT --data DIR --init runs/cls                       # every row, one seed: hours
    python benchmarks/ablation.py OUT --data DIR --init runs/cls --rows 'published; default' --seeds 0,1

A row is `wsss train-seg` with the preset and some settings, from the same classifier, on the same crops and for the
same number of steps. The default takes that number in each round; the rows "N epochs" (4 with the preset for a CPU)
take as many steps as all rounds together. Then `wsss predict` segments `val` with the weights of the last step: at one
scale, at the preset's scales, with flip and with the dense CRF. `wsss evaluate --errors` scores the masks. Every seed
has its own training; the classifier is always the same. Results that are in OUT are kept and a stopped training is
resumed, so rows may be added one by one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from measuring import machine, table

from wsss.config import Config, resolve
from wsss.inference.settings import predict_scales
from wsss.machine import pick_device

PUBLISHED = (
    "maps.method=getam",
    "maps.start_layer=0",
    "maps.gamma=1",
    "maps.spread=0",
    "labels.background=power",
    "labels.decoder=false",
    "segment.maps_share=1",
    "segment.ema=0",
    "segment.weight_energy=1e-7",
    "segment.rounds=1",
)
"""The published class maps, completion and losses; network, optimiser, crops and steps are those of the other rows."""

CEILING = "true masks"
"""Rows whose names begin with this are trained on true masks."""

NUMBERS = ("no", "one", "two", "three", "four")


def rows_of(config: Config) -> dict[str, Sequence[str]]:
    """Rows of a preset by name; the settings of each are given to `wsss train-seg`, and rows differ in one setting.

    "one round" is the first of the default's rounds; rows "N epochs" take as many steps as all of them.
    """
    assert config.segment.epochs is not None  # a preset says how many
    epochs = config.segment.epochs * config.segment.rounds
    longer = (f"segment.epochs={epochs}",)
    return {
        "published": PUBLISHED,
        f"published, {epochs} epochs": (*PUBLISHED, *longer),
        "maps alone": ("segment.maps_share=1", "segment.ema=0", "segment.rounds=1"),
        "no average": ("segment.ema=0", "segment.rounds=1"),
        "one round": ("segment.rounds=1",),
        "default": (),
        "one round, energy": ("segment.weight_energy=1e-7", "segment.rounds=1"),
        CEILING: (),
        f"{CEILING}, {epochs} epochs": longer,
    }


def views_of(config: Config) -> dict[str, Sequence[str]]:
    """Flags of `wsss predict` by name: at the side of the crops, and at the preset's scales.

    Raises:
        typer.BadParameter: the preset has one scale or more than four.
    """
    scales = predict_scales(config)
    if not 2 <= len(scales) < len(NUMBERS):
        raise typer.BadParameter(f"predict.scales is {scales}: the tables need two to four scales")
    one = ("--scales", str(config.augment.size))
    several, name = ("--scales", ",".join(map(str, scales))), f"{NUMBERS[len(scales)]} scales"
    return {
        "one scale": (*one, "--no-flip"),
        "flip": (*one, "--flip"),
        name: (*several, "--no-flip"),
        f"{name}, flip": (*several, "--flip"),
        f"{name}, flip, CRF": (*several, "--flip", "--crf"),
    }


def wsss(*arguments: object) -> str:
    """Run a command and return its standard output; progress goes to the terminal.

    Raises:
        SystemExit: the command failed.
    """
    done = subprocess.run([sys.executable, "-m", "wsss", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def train(run: Path, preset: str, data: Path, init: Path, row: str, assignments: Sequence[str], seed: int) -> None:
    """Train a row; a finished run is kept, a stopped one is resumed."""
    if (run / ".done").is_file():
        return
    if (run / "last.pt").is_file():
        wsss("train-seg", "--resume", run)
    else:
        labels = ("--labels", data / "SegmentationClass") if row.startswith(CEILING) else ()
        settings = [part for assignment in assignments for part in ("--set", assignment)]
        wsss("train-seg", "-c", preset, "--data", data, "--init", init, "--seed", seed, *labels, *settings, "-o", run)
    (run / ".done").touch()


def score(run: Path, preset: str, data: Path, view: str, flags: Sequence[str]) -> dict[str, Any]:
    """Figures of ``wsss evaluate --errors`` on ``val``."""
    masks = run / folder(view)
    if not (masks / ".done").is_file():
        wsss("predict", run, data, "--split", "val", "-c", preset, *flags, "--no-overlays", "-o", masks)
        (masks / ".done").touch()
    report: dict[str, Any] = json.loads(wsss("evaluate", masks, "--data", data, "--split", "val", "--errors", "--json"))
    return report


def folder(name: str) -> str:
    """Folder name of a row or a view."""
    return name.replace(",", "").replace(" ", "-")


def images_per_second(run: Path) -> float:
    """Images a second of a training: the median over the lines of its metrics."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return statistics.median(float(row["images_per_second"]) for row in rows if "images_per_second" in row)


def percent(values: Sequence[float]) -> str:
    """``mean (smallest-largest)`` in percent; without the range for one value."""
    low, high = 100 * min(values), 100 * max(values)
    return f"{100 * statistics.mean(values):.1f}" + (f" ({low:.1f}-{high:.1f})" if len(values) > 1 else "")


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    init: Annotated[Path, typer.Option(help="Run of train-cls that every row starts from.")],
    preset: Annotated[str, typer.Option("-c", "--config")] = "voc-animals-cpu",
    rows: Annotated[str, typer.Option(help="Names of rows, semicolons between; all unless given.")] = "",
    seeds: str = "0",
) -> None:
    """Train, score and print the tables."""
    config = resolve(preset)
    every, views, device = rows_of(config), views_of(config), pick_device(config.run.device)
    chosen = [row.strip() for row in rows.split(";")] if rows else list(every)
    unknown = [row for row in chosen if row not in every]
    if unknown:
        raise typer.BadParameter(f"no row {'; '.join(unknown)}; there are {'; '.join(every)}")
    numbers = [int(seed) for seed in seeds.split(",")]
    runs = {row: [out / f"{folder(row)}-{seed}" for seed in numbers] for row in chosen}
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in chosen:
        for run, seed in zip(runs[row], numbers, strict=True):
            train(run, preset, data, init, row, every[row], seed)
        reports[row] = {
            view: [score(run, preset, data, view, flags) for run in runs[row]] for view, flags in views.items()
        }
    print(f"### Ablation on val, {preset}, seeds {seeds} ({machine(device)})\n")
    print(table(["row", *views, "images/s"], [figures(row, reports[row], runs[row]) for row in chosen]))
    print("\n### IoU of the classes, one scale\n")
    classes = list(reports[chosen[0]]["one scale"][0]["per_class_iou"])
    print(table(["row", *classes], [per_class(row, reports[row]["one scale"], classes) for row in chosen]))
    print("\n### Kinds of error, % of the lost pixels, one scale\n")
    kinds = list(reports[chosen[0]]["one scale"][0]["errors"]["all_classes"]["shares"])
    header = ["row", "lost, % of all", *(kind.replace("_", " ") for kind in kinds)]
    print(table(header, [lost(row, reports[row]["one scale"], kinds) for row in chosen]))


def figures(row: str, reports: Mapping[str, list[dict[str, Any]]], runs: Sequence[Path]) -> list[str]:
    """Row of the first table (mIoU of each view)."""
    cells = [percent([report["mean_iou"] for report in of_view]) for of_view in reports.values()]
    return [row, *cells, f"{statistics.mean(map(images_per_second, runs)):.2f}"]


def per_class(row: str, reports: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[str]:
    """Row of the second table (IoU of each class), means over the seeds; empty for a class that the split lacks."""
    ious = [[r["per_class_iou"][name] for r in reports if r["per_class_iou"][name] is not None] for name in classes]
    return [row, *(percent([statistics.mean(some)]) if some else "-" for some in ious)]


def lost(row: str, reports: Sequence[dict[str, Any]], kinds: Sequence[str]) -> list[str]:
    """Row of the third table (kinds of error), means over the seeds."""
    wrong = percent([statistics.mean(1 - report["pixel_accuracy"] for report in reports)])
    shares = [statistics.mean(r["errors"]["all_classes"]["shares"][kind] for r in reports) for kind in kinds]
    return [row, wrong, *(percent([share]) for share in shares)]


if __name__ == "__main__":
    typer.run(main)
