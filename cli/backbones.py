"""``wsss backbones``: the names that ``--backbone`` accepts."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import JsonOption


def backbones(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. '*small*'.")] = "*",
    details: Annotated[
        bool, typer.Option("--details", help="Also what each is; each is built for it, so name a narrow pattern.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the names of timm's plain vision transformers, and of its convolution networks for classifiers.

    With --details a table says of each whether class maps are read from its attention or from its last maps, its
    stride, prefix tokens and heads.
    """
    from wsss.cli.terminal import Terminal, console
    from wsss.errors import UsageError

    with heavy_imports():
        from wsss.models.catalogue import Described, backbone_names, described

    names = backbone_names(pattern)
    if not names:
        raise UsageError(f"timm has no backbone '{pattern}' for this program", "wsss backbones '*tiny*'")
    if not details:
        typer.echo(json.dumps(names) if as_json else "\n".join(names))
        return
    rows: list[Described] = []
    with Terminal() as terminal:
        terminal.begin("backbones", len(names))
        for name in names:
            try:
                rows.append(described(name))
            except UsageError as error:
                terminal.say(error.problem)
            terminal.advance()
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows]))
        return
    from rich.table import Table

    table = Table(*(name.replace("_", " ") for name in Described._fields), show_edge=False)
    for row in rows:
        table.add_row(*(str(value) if value else "-" for value in row))
    console.print(table)
