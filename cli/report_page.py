"""``wsss report``: runs and folders of label maps on one HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, Given, JsonOption, PaletteOption, configured


@configured(*("paths", "output", "data.root", *READING, "score", "limit", "palette", "as_json"))
def report(
    given: Given,
    paths: Annotated[
        list[Path], typer.Argument(help="Runs, and folders of make-pseudo or predict.", metavar="RUN|FOLDER...")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.", metavar="HTML")] = Path(
        "report.html"
    ),
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Score label maps; otherwise no mask is opened.")
    ] = True,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Images of the gallery at most; 0 leaves it out.", metavar="N")
    ] = None,
    palette: PaletteOption = "voc",
    as_json: JsonOption = False,
) -> None:
    """Write figures with what they are, IoU by class, kinds of error, object sizes, curves and a gallery on one page.

    Label maps are scored where their data have masks. The gallery orders images by IoU or doubt, filters them by class
    and kind of error, and shows the label maps of several folders side by side. The page opens from a file, needs no
    network and is smaller than 15 MB. Prints its path on standard output.
    """
    from wsss.cli.terminal import Terminal

    data = given.resolve().data
    with heavy_imports():
        from wsss.outputs.palettes import palette_named
        from wsss.report.page import write_page
        from wsss.report.sources import Scoring

    colours = palette_named(palette)
    with Terminal() as terminal:
        scoring = Scoring(data=data.root, reading=data, score=score)
        written = write_page(paths, output, terminal, scoring=scoring, limit=limit, palette=colours)
        terminal.say(f"{written['images']} images in the gallery, {written['bytes'] / 1024:.0f} KiB")
    typer.echo(json.dumps(written) if as_json else output)
