"""Time and memory of `class_maps` against images, pixels, classes and tags: the scaling table of RESULTS.md.

    python benchmarks/scaling.py --device cpu
    python benchmarks/scaling.py --backbone deit_small_patch16_224 --rounds 5
    python benchmarks/scaling.py --images 1,10,100,1000,10000 --sides 64 --classes "" --tags ""

GETAM, all blocks. One of the four varies, the others keep a middle value; images come in batches of `--batch`. Weights
and images are random. A time is the median over rounds, each of which runs every value once; memory is what a call adds
at its peak (see `memory.py`). Growth is y ~ x^e: e is the slope of a line through the logarithms of all values, and of
the larger half of them, where the constant cost of a call matters least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from maps import our_maps, random_batches, random_network
from measuring import added_memory, machine, table, take_turns

from wsss.machine import pick_device
from wsss.models.network import Network


@dataclass(frozen=True, slots=True)
class Load:
    """Input of `class_maps`: square images of ``side`` pixels with ``tags`` tags each, of ``classes`` classes."""

    images: int = 4
    side: int = 224
    classes: int = 20
    tags: int = 1


@cache
def network_for(backbone: str, device: str, classes: int) -> Network:
    """A network with random weights, made once in a process, so that its weights are not counted."""
    return random_network(backbone, torch.device(device), classes)


def read(backbone: str, device: str, batch: int, load: Load, *, warm_up: bool = False) -> None:
    """Make and discard the maps of a load; for the warm-up those of one image of one patch."""
    network = network_for(backbone, device, load.classes)
    if warm_up:
        load = replace(load, images=1, side=network.backbone.stride[0])
    for first in range(0, load.images, batch):
        counts = [load.tags] * min(batch, load.images - first)
        our_maps(network, random_batches(counts, load.side, batch, torch.device(device), load.classes))


def growth(x: Sequence[float], y: Sequence[float]) -> str:
    """Exponents of y ~ x^e over all values and over their larger half."""
    logs = np.log(np.maximum([x, y], 1e-9))
    half = len(x) // 2
    slopes = [np.polyfit(logs[0, first:], logs[1, first:], 1)[0] for first in (0, half) if len(x) - first > 1]
    return " / ".join(f"{slope:.2f}" for slope in slopes)


def axis_table(axis: str, loads: Sequence[Load], reader: Callable[..., None], device: torch.device, rounds: int) -> str:
    """Table with a row for each load, and the growth."""
    rivals: dict[str, Callable[[], Any]] = {str(i): partial(reader, load) for i, load in enumerate(loads)}
    seconds = [times.median for times in take_turns(rivals, rounds, device).values()]
    mebibytes = [added_memory(device, reader, load) for load in loads]
    x = [float(load.side**2 if axis == "side" else getattr(load, axis)) for load in loads]
    rows = [
        [f"{value:.0f}", f"{second:.3f}", f"{mebibyte:.0f}"]
        for value, second, mebibyte in zip(x, seconds, mebibytes, strict=True)
    ]
    rows.append(["growth", growth(x, seconds), growth(x, mebibytes)])
    return table(["pixels" if axis == "side" else axis, "seconds", "MiB"], rows)


def numbers(text: str) -> list[int]:
    """Integers of a comma-separated list."""
    return [int(part) for part in text.split(",") if part.strip()]


def main(
    backbone: Annotated[str, typer.Option(help="A timm vision transformer.")] = "deit_tiny_patch16_224",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    images: Annotated[str, typer.Option(help="Numbers of images; empty leaves the table out.")] = "1,4,16,64",
    sides: Annotated[str, typer.Option(help="Sides of the images in pixels.")] = "112,224,448,896",
    classes: Annotated[str, typer.Option(help="Numbers of classes.")] = "1,10,50,200",
    tags: Annotated[str, typer.Option(help="Numbers of tags an image.")] = "1,2,3,4,6",
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print a table an axis."""
    where = pick_device(device)
    reader = partial(read, backbone, str(where), batch)
    base = Load()
    if len(numbers(sides)) == 1:
        base = replace(base, side=numbers(sides)[0])
    print(f"{backbone}, batch {batch}, {rounds} rounds, {machine(where)}", flush=True)
    for axis, values in {"images": images, "side": sides, "classes": classes, "tags": tags}.items():
        if len(numbers(values)) < 2:
            continue
        loads = [replace(base, **{axis: value}) for value in numbers(values)]
        fixed = {name: getattr(base, name) for name in ("images", "side", "classes", "tags") if name != axis}
        print(f"\n### {axis}: {', '.join(f'{name} {value}' for name, value in fixed.items())}\n", flush=True)
        print(axis_table(axis, loads, reader, where, rounds), flush=True)


if __name__ == "__main__":
    typer.run(main)
