"""``wsss status``: how far a run or a folder of label maps has come."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import JsonOption, ShardOption


def status(
    path: Annotated[Path, typer.Argument(help="Run, or folder of make-pseudo or predict.", metavar="RUN")],
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how far a training, a labelling or a prediction has come.

    Exit status 0: done; 75: it can be resumed. So a script can decide what to do where a launcher such as torchrun
    hides the status of the program. Prints the counts on standard output ("steps 20/93"): where two calls print the
    same, nothing was done between them.
    """
    from wsss.cli.terminal import remark
    from wsss.errors import Interrupted
    from wsss.shard import parse_shard

    with heavy_imports():
        from wsss.training.status import status_of

    found = status_of(path, None if shard is None else parse_shard(shard))
    for part in found.parts:
        if part.images_per_second is not None and part.seconds_left:
            speed = f"{part.images_per_second:.1f} images/s"
            remark(f"{part}: {speed} when it was last measured, {_duration(part.seconds_left)} left at that speed")
    remark(f"missing: {', '.join(found.missing)}" if found.missing else "done")
    if as_json:
        plain = {"path": str(path), "done": found.is_done, "missing": list(found.missing)}
        typer.echo(json.dumps(plain | {"parts": [asdict(part) for part in found.parts]}))
    else:
        typer.echo(", ".join(map(str, found.parts)))
    raise typer.Exit(0 if found.is_done else Interrupted.exit_status)


def _duration(seconds: float) -> str:
    """In words, one unit: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
