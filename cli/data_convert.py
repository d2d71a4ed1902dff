"""``wsss data convert``: write a data set, or a folder of label maps, in another format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.completing import written_formats
from wsss.cli.options import READING, Given, JsonOption, OutOption, configured


@configured(
    *("data", "output", "to", "masks", "split", "copy", *READING),
    *("polygons", "like", "url_prefix", "as_annotations", "as_json"),
)
def convert(
    given: Given,
    data: Annotated[Path, typer.Argument(help="Data folder, or a folder of make-pseudo or predict.", metavar="DIR")],
    output: OutOption,
    to: Annotated[
        str,
        typer.Option(
            help="Format to write; wsss data formats lists them.",
            metavar="FORMAT",
            autocompletion=written_formats,
        ),
    ],
    masks: Annotated[bool, typer.Option("--masks", help="Write the masks too, where --to folder.")] = False,
    split: Annotated[
        list[str] | None, typer.Option(help="Write this split; may be repeated. All of them unless given.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images; otherwise they are linked to.")] = False,
    polygons: Annotated[bool, typer.Option("--polygons", help="Outlines instead of run lengths or brushes.")] = False,
    like: Annotated[
        Path | None, typer.Option(help="COCO file whose ids of images and categories are kept.", metavar="JSON")
    ] = None,
    url_prefix: Annotated[
        str, typer.Option(help="What stands before image names for Label Studio.", metavar="URL")
    ] = "/data/local-files/?d=",
    as_annotations: Annotated[
        bool, typer.Option("--as-annotations", help="Label Studio: annotations to correct, instead of predictions.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a data set, or a folder of label maps, in another format.

    OUT appears whole or not at all. Ignored pixels (255) have no place in most formats: they are left out and counted.
    On standard output: the path of OUT.
    """
    from wsss.cli.terminal import Terminal
    from wsss.data.findings import telling
    from wsss.data.writers.registry import find_writer
    from wsss.outputs.exports import export_data, export_labels, is_label_folder, refuse_existing, write_export

    writer, section = find_writer(to), given.resolve().data
    refuse_existing(output)
    with Terminal() as terminal:
        if is_label_folder(data):
            export = export_labels(data)
        else:
            with_masks = masks or writer.needs_masks
            note = telling(terminal.say)
            export = export_data(
                data, splits=split or (), reading=section, masks=with_masks, note=note, reporter=terminal
            )
        export.copy, export.polygons, export.like = copy, polygons, like
        export.url_prefix, export.annotations = url_prefix, as_annotations
        told = write_export(output, export, writer, terminal)
        for line in said(told):
            terminal.say(line)
    typer.echo(json.dumps({"output": str(output), "format": to, **told}) if as_json else output)


def said(told: Mapping[str, int | list[str]]) -> list[str]:
    """What was written and what was left out, in words."""
    from wsss.data.records import counted

    lines = [f"wrote {counted(int(told['images']), 'image')} of {counted(int(told['classes']), 'class', 'classes')}"]  # type: ignore[arg-type]
    if told["without_mask"]:
        lines.append(f"{told['without_mask']} images have tags but no mask and are left out: the format holds areas")
    if told["tags_differ"]:
        lines.append(
            f"{told['tags_differ']} images have other tags than classes in their masks: the latter are written"
        )
    if told["ignored_pixels"]:
        lines.append(f"{told['ignored_pixels']} ignored pixels (255) are left out: the format has no place for them")
    remarks = told["remarks"]
    return lines + (remarks if isinstance(remarks, list) else [])
