"""The curves of a training: what its ``metrics.jsonl`` holds, in series."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from wsss.files import disk_errors
from wsss.training.metrics import METRICS
from wsss.training.rounds import TEACHER

BESIDE = {"step", "epoch", "split", "lr", "images_per_second", "skipped"}
"""Keys of a line that are no loss and no figure of a validation."""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: its name and points (step, value)."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """The curves of one training.

    Attributes:
        name: of the training among the rounds of its run: "" or "teacher".
        losses: the loss and its terms, means of ten steps.
        validations: figures in [0, 1] of a validation split.
        split: that split; empty where there was none.
        broken: lines of the file that could not be read.
    """

    name: str
    losses: list[Series]
    validations: list[Series]
    split: str
    broken: int


def read_curves(run: Path) -> list[Curves]:
    """The curves of a run and of its teachers, the run first; none where there is no metrics.jsonl.

    Raises:
        DiskError: a file cannot be read.
    """
    found, name = [], ""
    while (run / METRICS).is_file():
        found.append(_curves(run / METRICS, name))
        run, name = run / TEACHER, f"{name}'s {TEACHER}" if name else TEACHER
    return found


def _curves(path: Path, name: str) -> Curves:
    losses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    validations: dict[str, list[tuple[float, float]]] = defaultdict(list)
    split, broken = "", 0
    with disk_errors(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        try:
            row = json.loads(line)
            step = float(row["step"])
        except (ValueError, KeyError, TypeError, RecursionError):
            broken += 1
            continue
        split = str(row.get("split", split))
        for key, value in row.items():
            if key not in BESIDE and isinstance(value, int | float):
                (validations if "split" in row else losses)[key].append((step, float(value)))
    as_series = [[Series(key, points) for key, points in some.items()] for some in (losses, validations)]
    return Curves(name=name, losses=as_series[0], validations=as_series[1], split=split, broken=broken)
