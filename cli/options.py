"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    str | None,
    typer.Option("-c", "--config", help="YAML file, or the name of a preset (wsss config list).", metavar="FILE"),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Set any config key; beats the file.", metavar="KEY=VALUE")
]
DataOption = Annotated[Path | None, typer.Option("--data", help="Data folder; see data/README.md.", metavar="DIR")]
TagsOption = Annotated[Path | None, typer.Option("--tags", help="Tags table, where it is not in the data folder.")]
TagsFromOption = Annotated[str | None, typer.Option("--tags-from", help="auto, file, xml, or masks.", metavar="SOURCE")]
RunOption = Annotated[Path | None, typer.Option("-o", "--output", help="Run folder to make.", metavar="RUN")]
OutOption = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", metavar="OUT")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AmpOption = Annotated[str | None, typer.Option(help="Autocast: none, bf16 or fp16.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random.")]
DeterministicOption = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--no-deterministic",
        help="Only algorithms of torch that repeat: the same bits again for the same config, data, seed and number of"
        " workers, on the same model of device with the same versions. Slower on a GPU.",
    ),
]
WorkersOption = Annotated[int | None, typer.Option(help="Loader processes.")]
ScalesOption = Annotated[
    str | None,
    typer.Option(help="Sides in pixels, e.g. 224,320; an image is brought to the area of such a square."),
]
FlipOption = Annotated[bool | None, typer.Option("--flip/--no-flip", help="Also read the mirrored image.")]
CrfOption = Annotated[bool | None, typer.Option("--crf/--no-crf", help="Refine with the dense CRF (wsss\\[crf]).")]
CheckpointOption = Annotated[str, typer.Option(help="Which checkpoint of the run: last or best.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
ResumeOption = Annotated[Path | None, typer.Option(help="Go on with this run, with its own config.", metavar="RUN")]


def numbers(text: str | None) -> list[str] | None:
    """The parts of a comma-separated option; the config says whether they are numbers."""
    return None if text is None else [part.strip() for part in text.split(",")]
