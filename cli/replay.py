"""``wsss replay``: where the loss of a step became NaN or infinite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import JsonOption


def replay(
    path: Annotated[Path, typer.Argument(help="bad-batch.pt of a run, or the run.", metavar="RUN/bad-batch.pt")],
    device: Annotated[str | None, typer.Option(help="Device to compute on; that of the run if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take a step with a bad loss again and say where its first value arises that is not finite.

    Prints forward or backward and the module on standard output; "finite" where all values are finite this time.
    """
    from wsss.cli.terminal import remark

    with heavy_imports():
        from wsss.training.replay import replay as take_again

    found = take_again(path, device)
    place = found.place
    if found.weights is not None:
        remark(f"the weights are those after step {found.weights}, of last.pt: those before step {found.step} are gone")
    if place is not None:
        inputs = ", ".join(f"{low:.4g} to {high:.4g}" for low, high in place.inputs)
        more = f"; its inputs: {inputs}" if inputs else ""
        remark(f"{place.where}: the {place.of} of {place.module} is not finite{more}")
        remark(f"for {', '.join(found.images)}")
    if as_json:
        plain = {"path": str(path), "step": found.step, "device": found.device, "weights_after": found.weights}
        where = {name: None if place is None else getattr(place, name) for name in ("where", "module", "of", "inputs")}
        typer.echo(json.dumps({**plain, **where, "images": found.images}))
    else:
        typer.echo("finite" if place is None else f"{place.where} {place.module}")
