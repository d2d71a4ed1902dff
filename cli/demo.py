"""``wsss demo``: every stage on generated scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import Given, configured


@configured(
    *("output", "config", "assignments", "train", "val", "threshold", "overwrite"),
    *("run.device", "run.seed", "run.workers", "run.deterministic"),
    preset="demo",
)
def demo(
    given: Given,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", metavar="OUT")] = Path("demo"),
    train: Annotated[int, typer.Option(min=2, help="Scenes to train on.")] = 1500,
    val: Annotated[int, typer.Option(min=1, help="Unseen scenes to score.")] = 200,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="The fixed threshold of the seeds.")] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier demo first.")] = False,
) -> None:
    """Generate scenes, train on their tags, make pseudo labels, train the segmentation, score unseen scenes.

    Needs no network and no data. The last line of standard output is a JSON object with the figures.
    """
    from wsss.cli.sharding import refuse_ranks
    from wsss.cli.terminal import Terminal, console, remark
    from wsss.files import write_whole

    refuse_ranks("demo")
    settings = given.resolve()

    from rich.table import Table

    with heavy_imports():
        from wsss.demo import clear, run_demo

    if overwrite:
        clear(output)
    with Terminal() as terminal:
        figures = run_demo(settings, output, terminal, train=train, val=val, threshold=threshold)
    table = Table(title=f"{val} unseen scenes, {train} scenes with tags to learn from, seed {settings.run.seed}")
    table.add_column("stage")
    table.add_column("figure")
    table.add_column("%", justify="right")
    for stage, figure, value in (
        ("train-cls", "tag mAP", figures.tag_map),
        ("make-pseudo", f"seed mIoU, threshold {threshold:g}", figures.seed_miou),
        ("make-pseudo", "pseudo-label mIoU", figures.pseudo_miou),
        ("train-seg", "segmentation mIoU", figures.segmentation_miou),
    ):
        table.add_row(stage, figure, f"{100 * value:.1f}")
    console.print(table)
    remark(f"{figures.seconds:.0f} s; look at {output / 'overview.jpg'} and {output / 'masks' / 'overlays'}")
    write_whole(output / "demo.json", json.dumps(figures.to_json()) + "\n")
    typer.echo(json.dumps(figures.to_json()))
