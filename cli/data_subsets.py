"""``wsss data split``, ``sample`` and ``tags``: other splits, fewer images, tags of masks."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.data_convert import said
from wsss.cli.options import READING, Given, JsonOption, OutOption, configured

if TYPE_CHECKING:
    from wsss.cli.terminal import Terminal
    from wsss.data.writers.writer import Export

DataArgument = Annotated[Path, typer.Argument(help="Data folder; see data/README.md.", metavar="DIR")]
MasksOption = Annotated[bool, typer.Option("--masks", help="Write the masks too.")]
CopyOption = Annotated[bool, typer.Option("--copy", help="Copy the images; otherwise they are linked to.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the choice.")]


@configured("data", "output", "shares", "split", "together", "seed", "masks", "copy", *READING, "as_json")
def split(
    given: Given,
    data: DataArgument,
    output: OutOption,
    shares: Annotated[
        str, typer.Option(help="New splits and their shares, which need not add up to 1.", metavar="NAME=SHARE,...")
    ] = "train=0.8,val=0.2",
    split: Annotated[
        list[str] | None, typer.Option(help="Divide this split and keep the others; may be repeated.")
    ] = None,
    together: Annotated[
        str | None,
        typer.Option(
            help="Images whose names have the same match stay in one split, e.g. '^(patient[0-9]+)'.", metavar="REGEX"
        ),
    ] = None,
    seed: SeedOption = 0,
    masks: MasksOption = False,
    copy: CopyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Divide a data set into new splits with the same share of every class, also where images have several tags.

    Copies of one photo stay together: images of the same bytes, and Roboflow's augmented copies. OUT is a data folder
    with a table of tags; it appears whole or not at all. On standard output: its path.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.findings import telling
    from wsss.outputs.exports import refuse_existing
    from wsss.outputs.subsets import divided

    refuse_existing(output)
    with Terminal() as terminal:
        export = divided(
            data,
            _shares(shares),
            splits=split or (),
            together=_pattern(together),
            seed=seed,
            reading=given.resolve().data,
            masks=masks,
            reporter=terminal,
            note=telling(terminal.say),
        )
        _write(output, export, copy, as_json, terminal)


@configured("data", "output", "images", "split", "seed", "masks", "copy", *READING, "as_json")
def sample(
    given: Given,
    data: DataArgument,
    output: OutOption,
    images: Annotated[int, typer.Option(min=1, help="How many images, over all splits.")] = 200,
    split: Annotated[list[str] | None, typer.Option(help="Take images of this split alone; may be repeated.")] = None,
    seed: SeedOption = 0,
    masks: MasksOption = False,
    copy: CopyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take some images of a data set for a quick trial: each split and each class by its share, no class lost.

    OUT is a data folder with a table of tags; it appears whole or not at all. On standard output: its path.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.findings import telling
    from wsss.outputs.exports import refuse_existing
    from wsss.outputs.subsets import sampled

    refuse_existing(output)
    with Terminal() as terminal:
        export = sampled(
            data,
            images,
            splits=split or (),
            seed=seed,
            reading=given.resolve().data,
            masks=masks,
            note=telling(terminal.say),
            reporter=terminal,
        )
        _write(output, export, copy, as_json, terminal)


@configured("data", "output", "split", *READING, "as_json")
def tags(
    given: Given,
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write.", metavar="TAGS.csv")],
    split: Annotated[list[str] | None, typer.Option(help="Images of this split alone; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make tags from masks, for benchmarks: such tags miss nothing that a person who tags would overlook.

    Any command takes the table with --tags. Images without a mask have no line in it and are counted. On standard
    output: its path.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.findings import telling
    from wsss.data.records import counted
    from wsss.errors import UsageError
    from wsss.outputs.subsets import write_tags_of_masks

    if output.exists():
        raise UsageError(f"{output} exists", "choose another name with -o")
    with Terminal() as terminal:
        note = telling(terminal.say)
        told = write_tags_of_masks(output, data, splits=split or (), reading=given.resolve().data, note=note)
        terminal.say(f"tags of {counted(told['images'], 'mask')}: supervision for benchmarks, which no person tagged")
        if told["tags_differ"]:
            terminal.say(f"{counted(told['tags_differ'], 'image')} of them had other tags")
        if told["without_mask"]:
            terminal.say(f"{counted(told['without_mask'], 'image')} without a mask left out")
    typer.echo(json.dumps({"output": str(output), "tags_from": "masks", **told}) if as_json else output)


def _write(output: Path, export: Export, copy: bool, as_json: bool, terminal: Terminal) -> None:
    """Write a data folder, show how many images of each class its splits have, and print its path."""
    from rich.table import Table
    from rich.text import Text

    from wsss.cli.log import printable
    from wsss.cli.terminal import console
    from wsss.data.writers.folder import FOLDER
    from wsss.outputs.exports import write_export

    export.copy = copy
    told = write_export(output, export, FOLDER, terminal)
    images = Counter(picture.split for picture in export.pictures)
    classes = {name: dict.fromkeys(images, 0) for name in export.classes}
    for picture in export.pictures:
        for tag in picture.tags:
            classes[tag][picture.split] += 1
    table = Table(show_edge=False)
    table.add_column("", overflow="fold")
    for part in images:
        table.add_column(Text(printable(part)), justify="right")
    table.add_row("images", *map(str, images.values()), end_section=True)
    for name, counts in classes.items():
        table.add_row(Text(printable(name)), *map(str, counts.values()))
    for line in said(told):
        terminal.say(line)
    if not as_json:
        console.print(table)
    report = {"output": str(output), "splits": dict(images), "images_by_class": classes, **told}
    typer.echo(json.dumps(report | {"images": len(export.pictures)}) if as_json else output)


def _shares(text: str) -> dict[str, float]:
    """Shares by name, of a text such as train=0.8,val=0.2.

    Raises:
        UsageError: it is no such list.
    """
    from wsss.errors import UsageError

    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not name or name in shares or not 0 < share < math.inf:
            what = f"--shares {text}: expected NAME=SHARE with different names and shares above 0, got '{part}'"
            raise UsageError(what, "--shares train=0.8,val=0.2")
        shares[name] = share
    return shares


def _pattern(text: str | None) -> re.Pattern[str] | None:
    """A regular expression.

    Raises:
        UsageError: it is none.
    """
    from wsss.errors import UsageError

    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(
            f"--together {text}: {error}", "--together '^([^_]+)'  # the part before the first _"
        ) from error
