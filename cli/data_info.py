"""``wsss data info``: what a data folder is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.options import READING, Given, JsonOption, configured

if TYPE_CHECKING:
    from wsss.data.info import DataInfo

MOST_SHOWN = 10
"""Pairs of classes and sizes of images that are shown; --json has all."""


@configured("data", *READING, "as_json")
def info(
    given: Given,
    data: Annotated[Path, typer.Argument(help="Data folder; see data/README.md.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Show what a data folder is read as: its format and why, classes, splits, tags an image, sizes.

    Where several formats fit, all are listed with the option that chooses one; exit status 3.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.findings import telling
    from wsss.data.info import describe_data

    reading = given.resolve().data
    with Terminal() as terminal:
        found = describe_data(data, terminal, reading=reading, note=telling(terminal.say))
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    _print(found)


def _print(found: DataInfo) -> None:
    from rich.table import Table
    from rich.text import Text

    from wsss.cli.terminal import console

    def line(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    line(f"{found.root}: format {found.format} ({found.why})")
    table = Table(show_edge=False)
    table.add_column("", overflow="fold")
    for split in found.splits:
        table.add_column(Text(split), justify="right")
    splits = found.splits.values()
    table.add_row("images", *(str(one.images) for one in splits))
    table.add_row("with a mask", *(str(one.masks) for one in splits), end_section=True)
    for tags in sorted({tags for one in splits for tags in one.by_tags}):
        name = "of no class" if tags == 0 else f"of {tags} class{'es' if tags > 1 else ''}"
        table.add_row(name, *(str(one.by_tags.get(tags, 0)) for one in splits))
    table.add_section()
    for index, name in enumerate(found.classes, start=1):
        table.add_row(Text(f"{index} {name}"), *(str(one.by_class[name]) for one in splits))
    console.print(table)
    for split, one in found.splits.items():
        if one.origin:
            line(f"{split}: tags of {one.origin}")
    _print_most("together in an image", {" and ".join(pair): count for pair, count in found.together.items()}, line)
    _print_most("sizes (width x height)", found.sizes, line)


def _print_most(what: str, counts: dict[str, int], line: Callable[[str], None]) -> None:
    """The most frequent of something, in one line."""
    if counts:
        first = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:MOST_SHOWN])
        more = len(counts) - MOST_SHOWN
        line(f"{what}: {first}" + (f" and {more} more" if more > 0 else ""))
