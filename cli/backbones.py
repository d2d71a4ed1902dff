"""``wsss backbones``: the names that ``--backbone`` accepts."""

from __future__ import annotations

from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports


def backbones(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. '*small*'.")] = "*",
) -> None:
    """Print the names of timm's plain vision transformers."""
    from wsss.errors import UsageError

    with heavy_imports():
        from wsss.models.backbone import plain_transformers

    names = plain_transformers(pattern)
    if not names:
        raise UsageError(f"timm has no plain vision transformer '{pattern}'", "wsss backbones '*tiny*'")
    for name in names:
        typer.echo(name)
