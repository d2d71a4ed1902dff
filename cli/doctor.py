"""``wsss doctor``: what this machine has and lacks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, Given, JsonOption, configured


@configured("data.root", "model.backbone", "model.weights", "run.workers", "output", "config", *READING, "as_json")
def doctor(
    given: Given,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where outputs would go.", metavar="DIR")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Look at versions, devices, cores, memory, disk, optional pieces, weights and, with --data, at a data folder.

    Each thing that is missing comes with what mends it. Downloads nothing. Exit status 4 where something does not work.
    """
    from rich.table import Table
    from rich.text import Text

    from wsss.cli.log import printable
    from wsss.cli.terminal import console
    from wsss.errors import MachineError

    config = given.resolve()
    with heavy_imports():
        from wsss.doctor import examine

    checks = examine(config, output)
    table = Table(show_edge=False)
    for heading in ("", "", "found", "mend"):
        table.add_column(heading, overflow="fold")
    styles = {"ok": "green", "note": "yellow", "bad": "red"}
    for check in checks:
        cells = (Text(printable(text)) for text in (check.name, check.found, check.mend))
        table.add_row(Text(check.status, style=styles[check.status]), *cells)
    console.print(table)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    bad = [check for check in checks if check.status == "bad"]
    if bad:
        more = f" ({len(bad)} things do not work)" if len(bad) > 1 else ""
        raise MachineError(f"{bad[0].name}: {bad[0].found}{more}", bad[0].mend)
