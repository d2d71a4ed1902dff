"""``wsss explain``: what a kind of error, warning or finding means."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from wsss.cli.completing import kinds
from wsss.cli.options import JsonOption


def explain(
    kind: Annotated[
        str | None,
        typer.Argument(help="As data check and errors name it; all are listed if not given.", autocompletion=kinds),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a kind of error, warning or finding is, why it matters, an example and what mends it."""
    from wsss.explain.pages import page_of, pages

    wanted = list(pages().values()) if kind is None else [page_of(kind)]
    if as_json:
        typer.echo(json.dumps([asdict(page) for page in wanted]))
    elif kind is not None:
        typer.echo(f"{kind} ({wanted[0].group})\n\n{wanted[0].text}")
    else:
        typer.echo("\n".join(f"{page.kind}\t{page.what}" for page in wanted))
