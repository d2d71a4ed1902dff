"""What each piece of the recipe is worth on VOC animals: the ablation table of RESULTS.md.

    python benchmarks/ablation.py OUT --data DIR --init runs/cls                       # every row, one seed: hours
    python benchmarks/ablation.py OUT --data DIR --init runs/cls --rows 'published; default' --seeds 0,1

A row is `wsss train-seg` with the preset and some settings, from the same classifier, on the same crops, for as many
steps; the default takes twice that, in two rounds, and so do the rows "4 epochs". Then come `wsss predict` of `val`, at
one scale and more up to two with flip and the dense CRF, and `wsss evaluate --errors`. The last step is scored. Every
seed has its own training; the classifier stays. What is in OUT already is kept and a stopped training goes on, so rows
may be added one by one.
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
"""The published reading, completion and losses; network, optimiser, crops and steps are those of the other rows."""

LONGER = ("segment.epochs=4",)
"""As many steps as the two rounds of the default; the preset has two epochs a round."""

ROWS: Mapping[str, Sequence[str]] = {
    "published": PUBLISHED,
    "published, 4 epochs": (*PUBLISHED, *LONGER),
    "maps alone": ("segment.maps_share=1", "segment.ema=0", "segment.rounds=1"),
    "no average": ("segment.ema=0", "segment.rounds=1"),
    "one round": ("segment.rounds=1",),
    "default": (),
    "one round, energy": ("segment.weight_energy=1e-7", "segment.rounds=1"),
    "true masks": (),
    "true masks, 4 epochs": LONGER,
}
"""One switch at a time; each is `wsss train-seg` with these settings. "one round" is the first of the default's two."""

CEILINGS = ("true masks", "true masks, 4 epochs")
"""Rows that learn true masks."""

VIEWS: Mapping[str, Sequence[str]] = {
    "one scale": ("--scales", "224", "--no-flip"),
    "flip": ("--scales", "224", "--flip"),
    "two scales": ("--scales", "224,320", "--no-flip"),
    "two scales, flip": ("--scales", "224,320", "--flip"),
    "two scales, flip, CRF": ("--scales", "224,320", "--flip", "--crf"),
}


def wsss(*arguments: object) -> str:
    """Standard output of a command; progress goes to the terminal.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, "-m", "wsss", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def train(run: Path, preset: str, data: Path, init: Path, row: str, seed: int) -> None:
    """Train unless that is done; go on where it was stopped."""
    if (run / ".done").is_file():
        return
    if (run / "last.pt").is_file():
        wsss("train-seg", "--resume", run)
    else:
        labels = ("--labels", data / "SegmentationClass") if row in CEILINGS else ()
        settings = [part for setting in ROWS[row] for part in ("--set", setting)]
        wsss("train-seg", "-c", preset, "--data", data, "--init", init, "--seed", seed, *labels, *settings, "-o", run)
    (run / ".done").touch()


def score(run: Path, preset: str, data: Path, view: str) -> dict[str, Any]:
    """Figures of ``wsss evaluate --errors`` on ``val``."""
    masks = run / folder(view)
    if not (masks / ".done").is_file():
        wsss("predict", run, data, "--split", "val", "-c", preset, *VIEWS[view], "--no-overlays", "-o", masks)
        (masks / ".done").touch()
    report: dict[str, Any] = json.loads(wsss("evaluate", masks, "--data", data, "--split", "val", "--errors", "--json"))
    return report


def folder(name: str) -> str:
    """Of a row or a view."""
    return name.replace(",", "").replace(" ", "-")


def images_per_second(run: Path) -> float:
    """Median over a training's lines of metrics."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return statistics.median(float(row["images_per_second"]) for row in rows if "images_per_second" in row)


def percent(values: Sequence[float]) -> str:
    """``mean (smallest-largest)`` in percent; one value alone."""
    low, high = 100 * min(values), 100 * max(values)
    return f"{100 * statistics.mean(values):.1f}" + (f" ({low:.1f}-{high:.1f})" if len(values) > 1 else "")


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    init: Annotated[Path, typer.Option(help="Run of train-cls that every row starts from.")],
    preset: Annotated[str, typer.Option("-c", "--config")] = "voc-animals-cpu",
    rows: Annotated[str, typer.Option(help="Semicolons between; all are " + "; ".join(ROWS))] = "",
    seeds: str = "0",
) -> None:
    """Train, score and print the tables."""
    chosen = [row.strip() for row in rows.split(";")] if rows else list(ROWS)
    unknown = [row for row in chosen if row not in ROWS]
    if unknown:
        raise typer.BadParameter(f"no row {'; '.join(unknown)}; there are {'; '.join(ROWS)}")
    numbers = [int(seed) for seed in seeds.split(",")]
    runs = {row: [out / f"{folder(row)}-{seed}" for seed in numbers] for row in chosen}
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in chosen:
        for run, seed in zip(runs[row], numbers, strict=True):
            train(run, preset, data, init, row, seed)
        reports[row] = {view: [score(run, preset, data, view) for run in runs[row]] for view in VIEWS}
    print(f"### Ablation on val, {preset}, seeds {seeds} ({machine()})\n")
    print(table(["row", *VIEWS, "images/s"], [figures(row, reports[row], runs[row]) for row in chosen]))
    print("\n### IoU of the classes, one scale\n")
    classes = list(reports[chosen[0]]["one scale"][0]["per_class_iou"])
    print(table(["row", *classes], [per_class(row, reports[row]["one scale"], classes) for row in chosen]))
    print("\n### Kinds of error, % of the lost pixels, one scale\n")
    kinds = list(reports[chosen[0]]["one scale"][0]["errors"]["all_classes"]["shares"])
    header = ["row", "lost, % of all", *(kind.replace("_", " ") for kind in kinds)]
    print(table(header, [lost(row, reports[row]["one scale"], kinds) for row in chosen]))


def figures(row: str, reports: Mapping[str, list[dict[str, Any]]], runs: Sequence[Path]) -> list[str]:
    """Row of the first table."""
    views = [percent([report["mean_iou"] for report in reports[view]]) for view in VIEWS]
    return [row, *views, f"{statistics.mean(map(images_per_second, runs)):.2f}"]


def per_class(row: str, reports: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[str]:
    """Row of the second table, means over the seeds; a class that the split does not show has no IoU."""
    ious = [[r["per_class_iou"][name] for r in reports if r["per_class_iou"][name] is not None] for name in classes]
    return [row, *(percent([statistics.mean(some)]) if some else "-" for some in ious)]


def lost(row: str, reports: Sequence[dict[str, Any]], kinds: Sequence[str]) -> list[str]:
    """Row of the third table, means over the seeds."""
    wrong = percent([statistics.mean(1 - report["pixel_accuracy"] for report in reports)])
    shares = [statistics.mean(r["errors"]["all_classes"]["shares"][kind] for r in reports) for kind in kinds]
    return [row, wrong, *(percent([share]) for share in shares)]


if __name__ == "__main__":
    typer.run(main)
