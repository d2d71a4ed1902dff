"""``wsss show``: one picture and the class maps that a network reads from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import CheckpointOption, Given, JsonOption, PaletteOption, configured


@configured(
    *("image", "run", "output", "tags", "layers", "methods", "config", "assignments"),
    *("maps.method", "maps.start_layer", "maps.scales", "maps.flip", "palette", "checkpoint", "run.device", "as_json"),
)
def show(
    given: Given,
    image: Annotated[Path, typer.Argument(help="An image.")],
    run: Annotated[Path, typer.Option(help="Run of train-cls or train-seg, or a checkpoint file.", metavar="RUN")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="PNG to write; by default NAME-maps.png here.", metavar="PNG"),
    ] = None,
    tags: Annotated[
        str | None, typer.Option(help="Classes whose maps are drawn; those that the network finds if not given.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also the maps from each block on.")] = False,
    methods: Annotated[bool, typer.Option("--methods", help="Also the maps of each method.")] = False,
    palette: PaletteOption = "voc",
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Draw one picture, its label map and its class maps on a sheet.

    A terminal with colours shows the sheet too. Prints the path of the PNG on standard output.
    """
    from wsss.cli.half_blocks import can_show, half_blocks
    from wsss.cli.terminal import Terminal, console, remark

    early = given.check()
    with heavy_imports():
        from wsss.data.levels import parse_levels
        from wsss.inference.inputs import image_array
        from wsss.inference.labeller import effective_labels
        from wsss.inference.settings import map_words
        from wsss.inference.showing import show_maps
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import load_network
        from wsss.outputs.palettes import palette_named
        from wsss.outputs.pictures import fitted, write_png

    colours, chosen = palette_named(palette), prepare_device(early.run)
    network, trained, _ = load_network(run, checkpoint)
    settings = given.resolve_for(trained)
    image_HW3 = image_array(image, parse_levels(settings.data.levels))
    path = output or Path(f"{image.stem}-maps.png")
    with Terminal() as terminal:
        terminal.say(map_words(settings, effective_labels(network, settings.labels), trained))
        sheet_HW3, drawn = show_maps(
            network,
            image_HW3,
            settings,
            terminal,
            device=chosen,
            tags=[tag.strip() for tag in (tags or "").split(",") if tag.strip()],
            layers=layers,
            methods=methods,
            palette=colours,
        )
    write_png(path, sheet_HW3)
    remark(f"class maps of {', '.join(drawn)}")
    if can_show(console):
        console.print(half_blocks(fitted(sheet_HW3, console.width).tolist()))
    typer.echo(json.dumps({"output": str(path), "classes": drawn}) if as_json else path)
