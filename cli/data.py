"""``wsss data``: commands for data sets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.commands import Commands
from wsss.cli.data_convert import convert
from wsss.cli.data_formats import formats
from wsss.cli.data_info import info
from wsss.cli.data_pack import pack
from wsss.cli.data_subsets import sample, split, tags
from wsss.cli.options import READING, Given, JsonOption, configured

if TYPE_CHECKING:
    from rich.table import Table

    from wsss.data.check import Inspection

FIRST = 3
"""Findings of a kind that are shown; the file of --output has all."""

app = Commands(help="Commands for data sets.", no_args_is_help=True)
app.command()(info)
app.command()(formats)
app.command()(convert)
app.command()(pack)
app.command()(split)
app.command()(sample)
app.command()(tags)


@app.callback()
def _group() -> None:
    pass


@app.command()
@configured("data", "split", *READING, "data.saliency", "masks", "output", "as_json")
def check(
    given: Given,
    data: Annotated[Path, typer.Argument(help="Data folder; see data/README.md.", metavar="DIR")],
    split: Annotated[str | None, typer.Option(help="Check this split; all of them unless given.")] = None,
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Check the masks, if there are any.")] = True,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="CSV file to write with every finding.", metavar="LIST")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find what training would refuse, skip or misread: broken images, wrong tables, masks that do not fit.

    Shows the classes, and how many images of each split have them. Training refuses or skips errors, and reads images
    with warnings. Exit status 3 where there are errors. With -o the path of the list is printed on standard output.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.check import inspect_data, write_list
    from wsss.data.records import counted
    from wsss.errors import DataError

    config = given.resolve()
    section = config.data
    with Terminal() as terminal:
        inspection = inspect_data(
            data,
            terminal,
            split=split,
            reading=section,
            saliency=section.saliency,
            masks=masks,
            section=config.classify,
        )
    _print(inspection)
    if output is not None:
        write_list(output, inspection.all_findings)
    if as_json:
        typer.echo(json.dumps(inspection.to_json()))
    elif output is not None:
        typer.echo(output)
    errors = inspection.count("error")
    if errors:
        fix = f"mend or remove what {output} lists" if output else f"wsss data check {data} -o LIST.csv  # lists all"
        raise DataError(f"{data}: {counted(errors, 'error')} in the data set", fix)


def _print(inspection: Inspection) -> None:
    from rich.table import Table

    from wsss.cli.terminal import console, remark
    from wsss.data.records import counted

    if inspection.classes:
        console.print(_class_table(inspection))
    table = Table(show_edge=False)
    for heading, justify in (("", "left"), ("kind", "left"), ("count", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    kinds = Counter(finding.kind for finding in inspection.all_findings)
    for kind, count in kinds.items():
        found = [finding for finding in inspection.all_findings if finding.kind == kind]
        table.add_row(found[0].severity, kind, str(count))
        for finding in found[:FIRST]:
            remark(f"{finding.severity} {kind}: {finding.where}: {finding.what}")
        for mend in dict.fromkeys(finding.mend for finding in found[:FIRST] if finding.mend):
            remark(f"  mend: {mend}", "dim")
        if count > FIRST:
            remark(f"... and {count - FIRST} more of {kind}", "dim")
    if kinds:
        console.print(table)
        remark(f"wsss explain {next(iter(kinds))}  # what a kind is, and why it matters", "dim")
    splits = ", ".join(f"{name} {count}" for name, count in inspection.splits.items())
    warnings = inspection.count("warning") + len(inspection.lessons)
    figures = f"{counted(inspection.images, 'image')} examined ({splits or 'no split can be opened'}): "
    figures += f"{counted(inspection.count('error'), 'error')}, {counted(warnings, 'warning')}"
    if inspection.left_out:
        figures += f"; not read as images: {', '.join(f'{count} {why}' for why, count in inspection.left_out.items())}"
    remark(figures)


def _class_table(inspection: Inspection) -> Table:
    """How many images of each split have each class."""
    from rich.table import Table
    from rich.text import Text

    from wsss.cli.log import printable

    table = Table(show_edge=False)
    table.add_column("class", overflow="fold")
    for name in inspection.splits:
        table.add_column(Text(printable(name)), justify="right")
    for name in inspection.classes:
        counts = (str(of_class[name]) for of_class in inspection.classes_by_split.values())
        table.add_row(Text(printable(name)), *counts)
    return table
