"""``wsss review``: which label maps to look at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import JsonOption

SHOWN = 10
"""Rows of the table on the terminal; standard output has all that were asked for."""


def review(
    folder: Annotated[Path, typer.Argument(help="Folder of make-pseudo or predict, or of label maps NAME.png.")],
    first: Annotated[int | None, typer.Option(min=1, help="So many; all of them if not given.", metavar="N")] = None,
    as_json: JsonOption = False,
) -> None:
    """Queue the label maps of a folder, the most doubtful first.

    Pseudo labels: the largest share of ignored pixels, where class maps and decoder disagree. Predictions: the smallest
    margin between the two likeliest classes. Prints the path of each label map on standard output; correct these files
    in place, then train again: wsss train-seg --corrected FOLDER.
    """
    from rich.table import Table
    from rich.text import Text

    from wsss.cli.importing import heavy_imports
    from wsss.cli.log import printable
    from wsss.cli.terminal import console, remark

    with heavy_imports():
        from wsss.inference.review import review_queue

    queue = review_queue(folder)[:first]
    table = Table(show_edge=False)
    for heading, justify in (("doubt", "right"), ("image", "left"), ("classes", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for one in queue[:SHOWN]:
        table.add_row(f"{one.doubt:.3f}", Text(printable(one.name)), Text(printable(", ".join(one.classes))))
    console.print(table)
    kinds = {"ignored": "share of ignored pixels", "margin": "1 less the mean margin of the two likeliest classes"}
    remark(f"doubt: {kinds[queue[0].why]}", "dim")
    if as_json:
        keys = ("name", "doubt", "why")
        plain = [
            {
                **{key: getattr(one, key) for key in keys},
                "classes": list(one.classes),
                "label": str(one.label),
                "image": None if one.image is None else str(one.image),
            }
            for one in queue
        ]
        typer.echo(json.dumps(plain))
    else:
        typer.echo("\n".join(str(one.label) for one in queue))
