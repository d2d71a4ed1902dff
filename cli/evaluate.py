"""``wsss evaluate``: score label maps, or seeds from class scores, against human masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import READING, Given, JsonOption, configured


@configured(
    "predictions",
    "data.root",
    "split",
    *READING,
    "scores",
    "threshold",
    "errors",
    "sizes",
    "missing_as_wrong",
    "as_json",
)
def evaluate(
    given: Given,
    predictions: Annotated[Path, typer.Argument(help="Folder of make-pseudo or predict, or of label maps NAME.png.")],
    split: Annotated[str | None, typer.Option(help="Split to score.")] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Score the seeds of saved class scores, with a fixed threshold and an oracle."),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The fixed threshold of the seeds; by default that of their background rule."),
    ] = None,
    errors: Annotated[
        bool,
        typer.Option("--errors", help="Sort the wrong pixels of label maps by kind of error: missed, bleeding, ..."),
    ] = False,
    sizes: Annotated[
        bool,
        typer.Option("--sizes", help="IoU and recall of label maps by the size of objects, as shares of their images."),
    ] = False,
    missing_as_wrong: Annotated[
        bool,
        typer.Option("--missing-as-wrong", help="Count every pixel of an image without a label map as wrong."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score predictions: mIoU, IoU of each class, pixel accuracy, coverage.

    The table goes to standard error; --json prints the same figures on standard output.
    """
    from wsss.cli.report import print_report
    from wsss.cli.terminal import Terminal, console
    from wsss.data.dataset import open_data
    from wsss.data.findings import telling
    from wsss.data.records import counted
    from wsss.errors import UsageError
    from wsss.evaluation.report import Report, ScoreReport
    from wsss.inference.evaluate import evaluate_labels, evaluate_scores

    data = given.resolve().data
    if data.root is None:
        raise UsageError("no data folder was given", f"wsss evaluate {predictions} --data DIR")
    if scores and (errors or sizes):
        flag = "--errors" if errors else "--sizes"
        raise UsageError(
            f"{flag} needs label maps and --scores needs class scores: choose one",
            f"wsss evaluate {predictions} --data {data.root} {flag}",
        )
    report: Report | ScoreReport
    with Terminal() as terminal:
        tagged = open_data(data.root, split=split, reading=data, need_tags=False, note=telling(terminal.say))
        terminal.say(f"{tagged.origin()}: split {tagged.split}, {counted(len(tagged), 'image')}")

        def step(done: int, total: int) -> None:
            if done == 1:  # images without a mask are not among them
                terminal.begin("scoring", total)
            terminal.advance()

        if scores:
            report = evaluate_scores(predictions, tagged, fixed_threshold=threshold, on_progress=step)
        else:
            report = evaluate_labels(
                predictions,
                tagged,
                errors=errors,
                sizes=sizes,
                missing_as_wrong=missing_as_wrong,
                on_progress=step,
            )
    print_report(report, console)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
