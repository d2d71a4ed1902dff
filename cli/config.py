"""``wsss config``: show, check, list, compare and copy configs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.commands import Commands
from wsss.cli.completing import presets
from wsss.cli.options import ConfigOption, JsonOption, SetOption

app = Commands(help="Show, check, list, compare and copy configs.", no_args_is_help=True)


@app.command()
def show(config: ConfigOption = None, assignments: SetOption = None) -> None:
    """Print the resolved config as YAML: every key with its value."""
    from wsss.config import resolve, to_yaml

    typer.echo(to_yaml(resolve(config, assignments or ())), nl=False)


@app.command()
def check(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a preset.", metavar="FILE")],
) -> None:
    """Check a config; all mistakes are reported together."""
    from wsss.config import resolve

    resolve(config)
    typer.echo(f"{config}: fine")


@app.command("list")
def list_presets() -> None:
    """Print the names of the presets."""
    from wsss.config import preset_names

    for name in preset_names():
        typer.echo(name)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="Preset, YAML file or run folder.", autocompletion=presets)],
    second: Annotated[
        str | None, typer.Argument(help="Another one; the defaults unless given.", autocompletion=presets)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the keys in which two configs differ: key, value in the first, value in the second."""
    import json

    from wsss.config import plain_settings, resolve

    sides = [_source(one) for one in (first, second)]
    one, other = (plain_settings(resolve(side, say=lambda text: None)) for side in sides)
    found = {key: [value, other[key]] for key, value in one.items() if value != other[key]}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, values in found.items():
        typer.echo("\t".join((key, *map(json.dumps, values))))


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Preset, YAML file or run folder.", autocompletion=presets)],
    target: Annotated[Path, typer.Argument(help="YAML file to write.", metavar="FILE")],
    assignments: SetOption = None,
) -> None:
    """Copy a config to a file of one's own, to be changed there and given with -c; comments of a preset stay.

    With --set the file holds every key, with these values. Prints the path of the file.
    """
    from importlib import resources

    from wsss.config import preset_names, resolve, to_yaml
    from wsss.errors import UsageError
    from wsss.files import write_whole

    path = _source(source)
    config = resolve(path, assignments or ())
    if target.exists():
        raise UsageError(f"{target} exists", "choose another name")
    if assignments:
        text = to_yaml(config)
    elif not Path(path or "").is_file() and path in preset_names():
        text = resources.files("wsss.configs").joinpath(f"{path}.yaml").read_text(encoding="utf-8")
    else:
        text = Path(path or "").read_text(encoding="utf-8")
    write_whole(target, text)
    typer.echo(target)


def _source(name: str | None) -> str | None:
    """The preset or file that a name means: of a run or an output folder its config.yaml."""
    if name is not None and (Path(name) / "config.yaml").is_file():
        return str(Path(name) / "config.yaml")
    return name
