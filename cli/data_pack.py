"""``wsss data pack``: a data set as tar shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.data_convert import said
from wsss.cli.options import READING, Given, JsonOption, OutOption, configured


@configured("data", "output", "masks", "split", "shard_mb", *READING, "as_json")
def pack(
    given: Given,
    data: Annotated[Path, typer.Argument(help="Data folder; see data/README.md.", metavar="DIR")],
    output: OutOption,
    masks: Annotated[bool, typer.Option("--masks", help="Pack the masks too, for scoring.")] = False,
    split: Annotated[
        list[str] | None, typer.Option(help="Pack this split; may be repeated. All of them unless given.")
    ] = None,
    shard_mb: Annotated[int, typer.Option(min=1, help="Largest size of a shard, MiB.", metavar="MIB")] = 256,
    as_json: JsonOption = False,
) -> None:
    """Pack a data set into tar shards in webdataset's layout: a few large files where many small ones are slow.

    Every command reads OUT as it reads a folder, without extraction, and gives the same results bit for bit. OUT
    appears whole or not at all. On standard output: its path.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.findings import telling
    from wsss.data.writers.webdataset import WEBDATASET
    from wsss.outputs.exports import export_data, refuse_existing, write_export

    refuse_existing(output)
    with Terminal() as terminal:
        note = telling(terminal.say)
        export = export_data(
            data, splits=split or (), reading=given.resolve().data, masks=masks, note=note, reporter=terminal
        )
        export.shard_bytes = shard_mb * 2**20
        told = write_export(output, export, WEBDATASET, terminal)
        shards = len(list(output.glob("*.tar")))
        for line in (*said(told), f"{shards} shard{'s' if shards != 1 else ''}"):
            terminal.say(line)
    typer.echo(json.dumps({"output": str(output), "shards": shards, **told}) if as_json else output)
