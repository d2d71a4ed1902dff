"""``wsss data formats``: the formats that are read and written."""

from __future__ import annotations

import json

import typer

from wsss.cli.options import JsonOption


def formats(as_json: JsonOption = False) -> None:
    """List the formats that are read, with what each is recognised by, and those that are written."""
    from rich.table import Table
    from rich.text import Text

    from wsss.cli.terminal import console
    from wsss.data.readers.registry import READERS
    from wsss.data.writers.registry import WRITERS

    read = {name: reader.looks_for for name, reader in READERS.items()}
    written = {name: writer.writes for name, writer in WRITERS.items()}
    if as_json:
        typer.echo(json.dumps({"read": read, "written": written}))
        return
    for heading, option, rows in (("read", "--format", read), ("written", "--to", written)):
        table = Table(
            "name", heading, title=f"{heading} (wsss ... {option} NAME)", title_justify="left", show_edge=False
        )
        for name, text in rows.items():
            table.add_row(Text(name), Text(text))
        console.print(table)
