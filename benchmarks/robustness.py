"""What two classifiers keep of their scores on perturbed images: the table "Robustness" of results/attention.md.

    python benchmarks/robustness.py OUT --data DIR VIT CONVNET

Every suite of `wsss robustness` is run on both (``--suites`` names some), on the same images of ``val``. Seeds are read
at the class score that is best on ``train`` for each network, whose masks serve that alone. A row is the mean over the
levels of a kind (of replaced cells each by itself): the scores in percent, and in brackets what is kept of those of
clean images. Suites and images that are done are kept.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer
from edits import as_it_is, sweep_of
from measuring import CPU, machine, table

from wsss.data.dataset import open_data
from wsss.maps.recorder import MapSettings
from wsss.models.checkpoint import load_network

SUITES = "corruption,occlusion,shuffle,patch,adversarial"
Scores = list[dict[str, Any]]


def threshold_of(run: Path, data: Path, limit: int) -> float:
    """The class score with the best mIoU of seeds on ``train``, read as in a suite: one scale, no refinement."""
    network, config, _ = load_network(run)
    train = open_data(data, split="train", classes=network.classes)
    network.eval()
    sweep = sweep_of(network, train, limit, config.augment.size, as_it_is, MapSettings.of(config.maps))
    return sweep.oracle()[0]


def scores_of(run: Path, data: Path, suite: str, threshold: float, out: Path, limit: int) -> Scores:
    """The rows of a suite, by the program."""
    command = ["wsss", "robustness", run, "--data", data, "--suite", suite, "--split", "val", "--limit", limit]
    command += ["--threshold", f"{threshold:g}", "-o", out, "--json", "--set", "run.device=cpu"]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    rows: Scores = json.loads(done.stdout)["scores"]
    return rows


def cell(rows: Scores, target: str) -> str:
    """The mean of a target over the levels, and of what is kept."""
    values = [row[target] for row in rows]
    kept = [row["retention"][target] for row in rows]
    if None in values or None in kept:
        return ""
    mean, share = statistics.mean(values), statistics.mean(kept)
    return f"{100 * mean:.1f}" + ("" if rows[0]["kind"] == "clean" else f" ({100 * share:.0f}%)")


def place_of(suite: str, row: dict[str, Any]) -> tuple[str, str]:
    """The line of a row: its kind, and its level where levels are no degrees of one thing."""
    return row["kind"], row["level"] if suite == "patch" else ""


def lines_of(suite: str, found: list[Scores]) -> list[list[str]]:
    """A line a kind, with the tags and the maps of each network and the capture of those with attention."""
    lines = []
    for place in dict.fromkeys(place_of(suite, row) for row in found[0]):
        of_kind = [[row for row in rows if place_of(suite, row) == place] for rows in found]
        kind = place[0]
        captured = ["/".join(f"{row['capture'][-1]:.1f}" for row in rows if row["capture"]) for rows in of_kind]
        levels = ", ".join(row["level"] for row in of_kind[0])
        lines.append(
            [f"{suite}: {kind}" if kind != "clean" else "clean", levels]
            + [cell(rows, "tags") for rows in of_kind]
            + [cell(rows, "maps") for rows in of_kind]
            + [captured[0]]
        )
    return lines


def main(
    out: Path,
    runs: list[Path],
    data: Annotated[Path, typer.Option()],
    suites: Annotated[str, typer.Option(help="Suites, separated by commas.")] = SUITES,
    limit: Annotated[int, typer.Option(help="Images of val, and of train for the class score.")] = 100,
) -> None:
    """Measure what is missing, and print the table."""
    lines: list[list[str]] = []
    thresholds = {}
    for n, run in enumerate(runs):
        kept = out / f"threshold-{n}.json"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(threshold_of(run, data, limit)))
        thresholds[run] = float(json.loads(kept.read_text()))
    for suite in suites.split(","):
        found = [
            scores_of(run, data, suite, thresholds[run], out / f"{suite}-{n}", limit) for n, run in enumerate(runs)
        ]
        lines += lines_of(suite, found)[1 if lines else 0 :]
    names = [load_network(run)[0].backbone.name for run in runs]
    header = ["perturbation", "levels", *(f"tag mAP, {name}" for name in names), *(f"maps, {name}" for name in names)]
    print(f"{machine(CPU)}; class scores {', '.join(f'{value:g}' for value in thresholds.values())}; {limit} images\n")
    print(table([*header, "capture"], lines))


if __name__ == "__main__":
    typer.run(main)
