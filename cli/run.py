"""``wsss run``: the whole way in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, Given, JsonOption, configured


@configured(
    *(
        "data.root",
        "output",
        "images",
        "budget",
        "config",
        "assignments",
        "model.backbone",
        "model.weights",
        "augment.size",
    ),
    *("data.train_split", "data.val_split", *READING),
    *("run.device", "run.amp", "run.seed", "run.workers", "run.deterministic", "as_json"),
)
def run(
    given: Given,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make, or to continue.", metavar="OUT")],
    images: Annotated[
        Path | None,
        typer.Option(help="New images to segment; without it those of DIR that no split lists.", metavar="DIR|IMAGE"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time that the training may take, such as 2h or 90m: backbone, crops and epochs follow from the "
            "measured speed of this machine.",
            metavar="TIME",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the data, train the classifier, train the segmentation, predict new images, and report.

    OUT gets check.csv, the runs cls and seg, masks of the new images, and report.html. The same command continues
    where it was stopped; other settings are refused. With --budget a few steps are timed, and the largest training that
    fits is chosen and said, with what more time would buy; keys that are given stay as they are. Prints OUT on standard
    output.
    """
    from wsss.cli.terminal import Terminal
    from wsss.errors import UsageError
    from wsss.launcher import find_place

    config = given.resolve()
    if find_place().world > 1:
        what = "wsss run trains in one process, and several were started"
        raise UsageError(what, "torchrun --nproc-per-node N -m wsss train-cls ...  # then train-seg, predict, report")
    with heavy_imports():
        from wsss.pipeline import run_all

    with Terminal() as terminal:
        made = run_all(config, output, terminal, images, budget)
    typer.echo(json.dumps(made) if as_json else output)
