"""Seconds that short commands take: help, version and the mask of one image, and the parts of the last.

    python benchmarks/startup.py
    python benchmarks/startup.py --backbone deit_tiny_patch16_224 --rounds 3

Weights are random. The first table times commands as processes. The second runs the parts of ``wsss predict`` in a new
interpreter and times each. `import torch` does not import its compiler, torch._dynamo; but timm imports torchvision,
which imports it for an operator that `wsss` does not use.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from measuring import CPU, Times, machine, table, take_turns

from wsss.config import Config, resolve
from wsss.models.checkpoint import build_from, save_checkpoint
from wsss.outputs.pictures import write_jpeg

CLASSES = tuple(f"class {k}" for k in range(20))
TARGETS = {"wsss --help": "0.50"}

PARTS = {
    "import torch": "import torch",
    "import torch._dynamo": "import torch._dynamo",
    "import torchvision": "import torchvision",
    "import timm": "import timm",
    "import wsss": """
from pathlib import Path
from wsss.config import Config, resolve
from wsss.data.index import keep_readable_records
from wsss.data.dataset import open_unlabelled
from wsss.data.scaled import ScaledImages, load_batches
from wsss.machine import num_workers
from wsss.outputs.pictures import overlay, write_jpeg
from wsss.inference.predicting import predict_masks
from wsss.labels.bands import labels_from_grid
from wsss.models.averaged import log_label_probabilities
from wsss.models.checkpoint import file_hash, network_from, read_checkpoint
from wsss.cli.terminal import Terminal
from wsss.data.masks import write_mask
gc.enable()
gc.freeze()
""",
    "read the checkpoint": "content = read_checkpoint(Path(run, 'last.pt')); file_hash(Path(run, 'last.pt'))",
    "build the network": "network, config = network_from(content, Path(run))",
    "read the image": """
records, _ = keep_readable_records(open_unlabelled(Path(image)))
images = ScaledImages(records, (config.augment.size,), network.backbone.stride, 2**20, images=True)
batch = next(load_batches(images, num_workers(config.run)))
""",
    "network": """
(grid,) = log_label_probabilities(network, batch.at_scales(torch.device('cpu')))
label = labels_from_grid(grid, batch.sizes[0]).numpy()
""",
    "draw and write": """
write_jpeg(Path(out, 'overlay.jpg'), overlay(batch.images[0].numpy(), label))
write_mask(Path(out, 'mask.png'), label)
""",
}
"""The parts of ``wsss predict`` in order: statements by their name in the table."""

INTERPRETER = "start and leave Python"
TORCH = ("import torch", "import torch._dynamo")
WITH_COMPILER = "both imports of torch"

CLOCK = """
import gc, json, sys, time
parts, names = json.loads(sys.argv[1]), {"gc": gc, **json.loads(sys.argv[2])}
seconds = {}
gc.disable()
for part, statements in parts.items():
    began = time.perf_counter()
    exec(statements, names)
    seconds[part] = time.perf_counter() - began
print(json.dumps(seconds))
"""
"""Runs and times the parts; the garbage collector is off as in ``wsss.cli.importing``."""


def write_run(run: Path, backbone: str) -> None:
    """A run folder with the checkpoint of a network with random weights."""
    run.mkdir()
    config: Config = resolve(None, (), {"model.backbone": backbone, "model.weights": "none"})
    save_checkpoint(run / "last.pt", build_from(config, CLASSES, decoder=True), config)


def write_image(path: Path) -> None:
    """A photo-sized image of noise."""
    write_jpeg(path, np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8))


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands by their name in the table; ``-m wsss`` is the same as the script ``wsss`` and needs no path."""
    python = sys.executable
    script = Path(python).with_name("wsss")
    program = [str(script)] if script.is_file() else [python, "-m", "wsss"]
    files = [str(folder / "run"), str(folder / "image.jpg"), "-o", str(folder / "masks")]
    return {
        "wsss --help": [*program, "--help"],
        "wsss --version": [*program, "--version"],
        "python -c 'import torch'": [python, "-c", "import torch"],
        "python -c 'import timm'": [python, "-c", "import timm"],
        "wsss predict, one image": [*program, "predict", *files, "--device", "cpu", "--overwrite"],
    }


def rival(command: list[str]) -> Callable[[], None]:
    """A function that runs a command, which must succeed."""

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


def command_table(times: dict[str, Times]) -> str:
    """Table of the seconds of each command."""
    rows = [
        [
            f"`{what}`",
            f"{taken.median:.2f}",
            f"{min(taken.seconds):.2f}-{max(taken.seconds):.2f}",
            TARGETS.get(what, ""),
        ]
        for what, taken in times.items()
    ]
    return table(["command", "seconds", "range", "target"], rows)


def time_parts(folder: Path) -> dict[str, float]:
    """Seconds of each part in a fresh interpreter."""
    names = {"run": str(folder / "run"), "image": str(folder / "image.jpg"), "out": str(folder)}
    command = [sys.executable, "-c", CLOCK, json.dumps(PARTS), json.dumps(names)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    seconds: dict[str, float] = json.loads(done.stdout)
    return {**seconds, INTERPRETER: whole - sum(seconds.values())}


def part_table(found: list[dict[str, float]]) -> str:
    """Table of the seconds and share of each part, medians over the rounds."""
    rows = []
    for part in (*found[0], WITH_COMPILER):
        members = TORCH if part == WITH_COMPILER else (part,)
        seconds = [sum(times[member] for member in members) for times in found]
        shares = [taken / sum(times.values()) for taken, times in zip(seconds, found, strict=True)]
        rows.append([part, f"{statistics.median(seconds):.2f}", f"{100 * statistics.median(shares):.0f}"])
    return table(["part of wsss predict", "seconds", "share %"], rows)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    backbone: Annotated[str, typer.Option(help="A timm vision transformer.")] = "deit_small_patch16_224",
) -> None:
    """Print two tables."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder / "run", backbone)
        write_image(folder / "image.jpg")
        times = take_turns({what: rival(command) for what, command in commands(folder).items()}, rounds, CPU)
        found = [time_parts(folder) for _ in range(rounds)]
    print(
        f"### Startup, {backbone}, median of {rounds} ({machine(CPU)})\n\n{command_table(times)}\n\n{part_table(found)}"
    )


if __name__ == "__main__":
    typer.run(main)
