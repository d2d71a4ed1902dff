"""``wsss evaluate``: score label maps, or seeds from class scores, against human masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import READING, Given, JsonOption, ShardOption, configured


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
    "shard",
    "output",
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
    shard: ShardOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the counts of all shards.", metavar="OUT")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score predictions: mIoU, IoU of each class, pixel accuracy, coverage.

    The table goes to standard error; --json prints the same figures on standard output. With --shard, and in processes
    that srun or torchrun started together, each counts its share into OUT, and wsss merge OUT prints the sum.
    """
    from wsss.cli.report import print_report
    from wsss.cli.sharding import SharedWork
    from wsss.cli.terminal import Terminal, console
    from wsss.data.dataset import open_data
    from wsss.data.findings import telling
    from wsss.data.records import counted
    from wsss.errors import UsageError
    from wsss.evaluation.report import Report, ScoreReport
    from wsss.inference.evaluate import Counted, count_labels, count_scores
    from wsss.inference.score_shards import count_shard, merge_scores
    from wsss.outputs.merge import merge_last

    data = given.resolve().data
    if data.root is None:
        raise UsageError("no data folder was given", f"wsss evaluate {predictions} --data DIR")
    if scores and (errors or sizes):
        flag = "--errors" if errors else "--sizes"
        raise UsageError(
            f"{flag} needs label maps and --scores needs class scores: choose one",
            f"wsss evaluate {predictions} --data {data.root} {flag}",
        )
    work = SharedWork.of(shard)
    if work.shard is not None and output is None:
        raise UsageError(f"shard {work.shard} counts into a folder, and none was given", "-o OUT")
    if work.shard is None and output is not None:
        raise UsageError(f"-o {output}: only the counts of shards are written", "--shard 0/4, or leave out -o")
    report: Report | ScoreReport | None
    with Terminal() as terminal:
        tagged = open_data(data.root, split=split, reading=data, need_tags=False, note=telling(terminal.say))
        terminal.say(f"{tagged.origin()}: split {tagged.split}, {counted(len(tagged), 'image')}")

        def step(done: int, total: int) -> None:
            if done == 1:  # images without a mask are not among them
                terminal.begin("scoring", total)
            terminal.advance()

        def count() -> Counted:
            if scores:
                return count_scores(predictions, tagged, fixed_threshold=threshold, on_progress=step, shard=work.shard)
            return count_labels(
                predictions,
                tagged,
                errors=errors,
                sizes=sizes,
                missing_as_wrong=missing_as_wrong,
                on_progress=step,
                shard=work.shard,
            )

        if work.shard is None or output is None:
            report = count().report()
        else:
            asked: dict[str, bool | float | None] = {"scores": scores, "threshold": threshold}
            asked |= {"errors": errors, "sizes": sizes, "missing_as_wrong": missing_as_wrong}
            count_shard(output, work.shard, predictions, tagged, terminal, count, asked)
            report = merge_last(output, terminal, merge_scores) if work.place.world > 1 else None
            work.say(output, terminal, merged=report is not None)
    if report is not None:
        print_report(report, console)
    if as_json:
        facts = {"output": str(output), **work.facts()}
        typer.echo(json.dumps(facts if report is None else report.to_json()))
    elif output is not None:
        typer.echo(output)
