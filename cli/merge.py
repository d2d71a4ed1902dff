"""``wsss merge``: one whole of the shards that several processes made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import JsonOption


def merge(
    output: Annotated[Path, typer.Argument(help="Folder that was written with --shard.", metavar="OUT")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Keep what is done as an unfinished folder, to divide it anew.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make one whole of the shards of make-pseudo, predict or evaluate.

    Missing, unfinished and overlapping shards are named. The result is what a single process writes or, of evaluate,
    prints; to merge again does no harm. Prints the folder on standard output.
    """
    from wsss.cli.terminal import Terminal, console, remark
    from wsss.errors import UsageError
    from wsss.inference.score_shards import SCORES, holds_scores, merge_scores
    from wsss.outputs.merge import merge_labels
    from wsss.outputs.shards import found_shards

    if holds_scores(output):
        from wsss.cli.report import print_report

        if partial:
            raise UsageError(f"--partial: {output} holds a score, which must cover all images", f"wsss merge {output}")
        if found_shards(output):
            with Terminal() as terminal:
                report = merge_scores(output, terminal)
            print_report(report, console)
        remark(f"{output / SCORES} has the figures")
        typer.echo(json.dumps(json.loads((output / SCORES).read_text())) if as_json else output)
        return
    with Terminal() as terminal:
        counts = merge_labels(output, terminal, partial=partial)
        images = f"{counts['images']} images"
        terminal.say(f"kept what is done, {images}: now run it again, divided as you like" if partial else images)
    typer.echo(json.dumps({"output": str(output), **counts}) if as_json else output)
