"""The tables of ``wsss evaluate``: figures in percent, under a title that says which figures they are."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsss.cli.log import printable
from wsss.evaluation.report import ErrorReport, Report, ScoreReport, SizeReport

UNKNOWN = "unknown"


def print_report(report: Report | ScoreReport, console: Console) -> None:
    """Print IoU by class, mIoU, pixel accuracy and coverage; of seeds in two columns, fixed threshold and oracle."""
    columns = [report.fixed, report.oracle] if isinstance(report, ScoreReport) else [report]
    first = columns[0]
    rules = [column.threshold_rule for column in columns]
    table = Table(show_edge=False)
    table.add_column("class")
    for rule in rules:
        table.add_column("IoU %" if len(rules) == 1 else f"{rule}\nIoU %", justify="right")
    for name in first.per_class_iou:
        table.add_row(Text(printable(name)), *(_percent(column.per_class_iou[name]) for column in columns))
    table.add_section()
    table.add_row("mean IoU", *(_percent(column.mean_iou) for column in columns), style="bold")
    table.add_row("pixel accuracy", *(_percent(column.pixel_accuracy) for column in columns))
    table.add_row("coverage", *(_percent(column.coverage) for column in columns))
    console.print(Text(printable(_title(first, rules)), style="italic"), soft_wrap=True)
    console.print(table)
    console.print(Text(_caption(first), style="dim"), soft_wrap=True)
    for remark in first.remarks:
        console.print(Text(printable(remark), style="yellow"), soft_wrap=True)
    if first.sizes is not None:
        _print_sizes(first.sizes, console)
    if first.errors is not None:
        _print_errors(first.errors, 1 - first.pixel_accuracy, console)


def _print_errors(errors: ErrorReport, lost: float, console: Console) -> None:
    """Print the share of the wrong pixels that each class has, and their kinds of error.

    Args:
        errors: pixels by class and kind.
        lost: share of the scored pixels that are wrong, in [0, 1].
        console: where to print.
    """
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("class")
    table.add_column("lost", justify="right")
    for kind in errors.all_classes.shares:
        table.add_column(kind.replace("_", "\n"), justify="right")
    in_all = sum(errors.all_classes.pixels.values())
    for name, row in errors.per_class.items():
        share = sum(row.pixels.values()) / in_all if in_all else None
        table.add_row(Text(printable(name)), *map(_percent, (share, *row.shares.values())))
    table.add_section()
    total = 1.0 if in_all else None
    table.add_row("all classes", *map(_percent, (total, *errors.all_classes.shares.values())), style="bold")
    title = f"lost pixels: {_percent(lost)} % of all; the share of each class and of each kind of error, in percent"
    console.print(Text(title, style="italic"), soft_wrap=True)
    console.print(table)


def _print_sizes(sizes: SizeReport, console: Console) -> None:
    """Print IoU and recall by the size of objects."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("share of the image")
    for name in sizes.iou:
        table.add_column(name, justify="right")
    table.add_row("IoU", *map(_percent, sizes.iou.values()))
    table.add_row("of classes in images", *map(str, sizes.pairs.values()))
    table.add_row("parts found", *map(_percent, sizes.recall.values()))
    table.add_row("of parts", *map(str, sizes.parts.values()))
    console.print(Text("by the size of objects, in percent", style="italic"), soft_wrap=True)
    console.print(table)
    said = f"{_percent(sizes.absent)} % of the pixels are predicted as a class that their image does not have"
    console.print(Text(said, style="dim"), soft_wrap=True)


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
