"""What a score says of itself: the figures, and which figures they are.

A number without its split, kind, scales, flip, CRF, threshold rule and supervision cannot be compared with another.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class LostPixels:
    """Scored pixels whose class is wrong, by kind of error ("missed", "partial", ...: ``ErrorKind``).

    Attributes:
        pixels: how many.
        shares: of the pixels lost here, in [0, 1]; NaN where none is lost.
    """

    pixels: dict[str, int]
    shares: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorReport:
    """The kinds of error behind a score, over all classes and for each ("background" first)."""

    all_classes: LostPixels
    per_class: dict[str, LostPixels]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The score of one folder of predictions; every share is in [0, 1].

    Attributes:
        split: the split that was scored.
        kind: "pseudo", "segmentation", "seed", or "labels" where the predictions do not say what they are.
        method: how the class maps were made; None where unknown.
        scales: test scales; None where unknown.
        flip: whether mirrored images were averaged in; None where unknown.
        crf: whether a dense CRF came last; None where unknown.
        supervision: what they come from, see ``wsss.data.supervision``; None where unknown.
        threshold_rule: "none", "fixed 0.40" or "oracle 0.37" (chosen on the very masks it is scored with).
        images: scored images.
        unscored: images of the split that have no mask.
        missing: scored images without a prediction, every pixel of which counts as wrong.
        mean_iou: over the classes with a non-empty union; NaN where every pixel is ignored.
        per_class_iou: "background" first; None for a class with an empty union.
        pixel_accuracy: share of the pixels whose class is right.
        coverage: share of the pixels that the prediction gives a class; the others count as wrong.
        errors: the lost pixels by kind of error; None where not asked for.
    """

    split: str
    kind: str
    method: str | None
    scales: tuple[float, ...] | None
    flip: bool | None
    crf: bool | None
    supervision: tuple[str, ...] | None
    threshold_rule: str
    images: int
    unscored: int
    missing: int
    mean_iou: float
    per_class_iou: dict[str, float | None]
    pixel_accuracy: float
    coverage: float
    errors: ErrorReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``: tuples become lists, NaN becomes None; ``errors`` where asked for."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        if self.errors is None:
            del values["errors"]
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreReport:
    """The seeds of one folder of scores: at a threshold fixed beforehand and at the best one in hindsight."""

    fixed: Report
    oracle: Report

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``: {"fixed": ..., "oracle": ...}."""
        return {"fixed": self.fixed.to_json(), "oracle": self.oracle.to_json()}


def print_report(report: Report | ScoreReport, console: Console) -> None:
    """Print IoU by class, mIoU, accuracy and coverage in percent, under a title that says which they are."""
    columns = [report.fixed, report.oracle] if isinstance(report, ScoreReport) else [report]
    first = columns[0]
    rules = [column.threshold_rule for column in columns]
    table = Table(show_edge=False)
    table.add_column("class")
    for rule in rules:
        table.add_column("IoU %" if len(rules) == 1 else f"{rule}\nIoU %", justify="right")
    for name in first.per_class_iou:
        table.add_row(Text(name), *(_percent(column.per_class_iou[name]) for column in columns))
    table.add_section()
    table.add_row("mean IoU", *(_percent(column.mean_iou) for column in columns), style="bold")
    table.add_row("pixel accuracy", *(_percent(column.pixel_accuracy) for column in columns))
    table.add_row("coverage", *(_percent(column.coverage) for column in columns))
    console.print(Text(_title(first, rules), style="italic"), soft_wrap=True)
    console.print(table)
    console.print(Text(_caption(first), style="dim"), soft_wrap=True)
    if first.errors is not None:
        _print_errors(first.errors, 1 - first.pixel_accuracy, console)


def _print_errors(errors: ErrorReport, lost: float, console: Console) -> None:
    """Print which class loses how much, and to which kinds of error; ``lost`` is the share of the scored pixels."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("class")
    table.add_column("lost", justify="right")
    for kind in errors.all_classes.shares:
        table.add_column(kind.replace("_", "\n"), justify="right")
    in_all = sum(errors.all_classes.pixels.values())
    for name, row in errors.per_class.items():
        share = sum(row.pixels.values()) / in_all if in_all else None
        table.add_row(Text(name), *map(_percent, (share, *row.shares.values())))
    table.add_section()
    total = 1.0 if in_all else None
    table.add_row("all classes", *map(_percent, (total, *errors.all_classes.shares.values())), style="bold")
    title = f"lost pixels: {_percent(lost)} % of all; how much of that each class lost, and how, in percent"
    console.print(Text(title, style="italic"), soft_wrap=True)
    console.print(table)


def _title(report: Report, rules: list[str]) -> str:
    scales = UNKNOWN if report.scales is None else " ".join(f"{scale:g}" for scale in report.scales)
    kind = report.kind if report.method is None else f"{report.kind} ({report.method})"
    switches = f"flip {_on_off(report.flip)}, CRF {_on_off(report.crf)}"
    learnt = " + ".join(report.supervision or (f"{UNKNOWN} supervision",))
    return f"{report.split}: {kind}, from {learnt}, scales {scales}, {switches}, threshold {' and '.join(rules)}"


def _caption(report: Report) -> str:
    caption = f"{report.images} images scored"
    if report.unscored:
        caption += f", {report.unscored} without a mask not scored"
    if report.missing:
        caption += f", {report.missing} WITHOUT A PREDICTION, all of their pixels wrong"
    return caption


def _on_off(switch: bool | None) -> str:
    return UNKNOWN if switch is None else ("on" if switch else "off")


def _percent(share: float | None) -> str:
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
