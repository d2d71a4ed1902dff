"""``wsss backbones``: names for --backbone."""

from __future__ import annotations

from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports


def backbones(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. '*small*'.")] = "*",
) -> None:
    """Print the names of timm's plain vision transformers."""
    with heavy_imports():
        from wsss.models.backbone import plain_transformers

    for name in plain_transformers(pattern):
        typer.echo(name)
