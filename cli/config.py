"""``wsss config``: show, check and list configs."""

from __future__ import annotations

from typing import Annotated

import typer

from wsss.cli.options import ConfigOption, SetOption

app = typer.Typer(help="Show, check and list configs.", no_args_is_help=True)


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
