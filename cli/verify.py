"""``wsss verify``: whether the files of a run, of label maps or of packed data are as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import JsonOption

SHOWN = 20
"""Files of each fault that are named; --json names all."""


def verify(
    folder: Annotated[
        Path, typer.Argument(help="Run, folder of make-pseudo or predict, or of data pack.", metavar="FOLDER")
    ],
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Compare also the images that it was made from.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Compare all files with the hashes that were kept when they were written.

    Counts what is right and names what is missing, changed, cut short or unknown. Nothing is written. A label map that
    somebody corrected is changed too. Exit status 0: all is right; 3: something is not.
    """
    from wsss.cli.terminal import Terminal

    with heavy_imports():
        from wsss.outputs.verify import FAULTS, NotAsWritten
        from wsss.training.verify import verify as verify_folder

    with Terminal() as terminal:
        found = verify_folder(folder, terminal, data=data)
        for text in found.remarks:
            terminal.say(text)
        for fault in FAULTS:
            named = [one for one in found.findings if one.fault == fault]
            for one in named[:SHOWN]:
                terminal.say(str(one))
            if len(named) > SHOWN:
                terminal.say(f"{fault}: {len(named) - SHOWN} more, which --json names")
    counts = ", ".join(f"{name} {count}" for name, count in found.counts().items())
    if as_json:
        faults = {
            fault: [{"path": one.path, "why": one.why} for one in found.findings if one.fault == fault]
            for fault in FAULTS
        }
        typer.echo(json.dumps({"path": str(folder), "ok": not found.findings, "right": found.right, **faults}))
    else:
        typer.echo(counts)
    if found.findings:
        raise NotAsWritten(
            f"{folder} is not as it was written: {counts}",
            "copy it again; or repeat its command, which makes missing and damaged files anew and keeps corrected ones",
        )
