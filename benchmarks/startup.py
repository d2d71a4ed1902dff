"""Seconds until the program answers: help, version, and the mask of one image.

    python benchmarks/startup.py

The mask is made by a tiny network with random weights, so that its time is what every prediction pays first.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import typer
from measuring import machine, table, take_turns

from wsss.config import Config, resolve
from wsss.evaluation.overlay import write_jpeg
from wsss.training.checkpoint import save_checkpoint
from wsss.training.run import build_from

TINY = {
    "model.backbone": "deit_tiny_patch16_224",
    "model.weights": "none",
    "model.vit": {"embed_dim": 24, "depth": 4, "num_heads": 3, "img_size": 64},
    "model.decoder_channels": 16,
    "augment.size": 64,
}
TARGETS = {"wsss --help": "0.50"}


def write_run(run: Path) -> None:
    """A run folder with the checkpoint of a tiny network."""
    run.mkdir()
    config: Config = resolve(None, (), TINY)
    save_checkpoint(run / "last.pt", build_from(config, ("cat", "dog"), decoder=True), config)


def write_image(path: Path) -> None:
    """A photo-sized image of noise."""
    write_jpeg(path, np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8))


def commands(folder: Path) -> dict[str, list[str]]:
    """What is run, by its name in the table; ``-m wsss`` is what the script ``wsss`` does, wherever that lies."""
    python = sys.executable
    script = Path(python).with_name("wsss")
    program = [str(script)] if script.is_file() else [python, "-m", "wsss"]
    files = [str(folder / "run"), str(folder / "image.jpg"), "-o", str(folder / "masks")]
    return {
        "wsss --help": [*program, "--help"],
        "wsss --version": [*program, "--version"],
        "python -c 'import torch'": [python, "-c", "import torch"],
        "wsss predict, one image": [*program, "predict", *files, "--device", "cpu", "--overwrite"],
    }


def rival(command: list[str]) -> Callable[[], None]:
    """Runs a command, which must succeed."""

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


def main(rounds: int = 5) -> None:
    """Print one table."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder / "run")
        write_image(folder / "image.jpg")
        times = take_turns({what: rival(command) for what, command in commands(folder).items()}, rounds)
    print(f"### Startup, median of {rounds} ({machine()})\n")
    rows = [
        [
            f"`{what}`",
            f"{taken.median:.2f}",
            f"{min(taken.seconds):.2f}-{max(taken.seconds):.2f}",
            TARGETS.get(what, ""),
        ]
        for what, taken in times.items()
    ]
    print(table(["command", "seconds", "range", "target"], rows))


if __name__ == "__main__":
    typer.run(main)
