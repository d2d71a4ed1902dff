"""Memory, open files, threads and processes during long work, which should not grow with the number of images.

    python benchmarks/long_work.py --images 10000

Writes noise images of 32 x 32 pixels and runs make-pseudo and predict on them, with a tiny network of random weights.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import CPU, MEBIBYTE, machine, resident_memory, table
from PIL import Image

from wsss.config import Config, resolve
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.models.checkpoint import build_from
from wsss.models.network import Network

SIDE = 32
CLASSES = ("cat", "dog")
PHOTOS = ((375, 500), (480, 640), (3000, 4000), (640, 427), (4000, 3000), (1080, 1920))
"""(H, W) of photos of data sets, phones and videos."""
MOMENTS = (0.1, 0.5, 1.0)
"""Shares of the images after which a row is added to the table."""
SETTINGS = {
    "model.backbone": "deit_tiny_patch16_224",
    "model.weights": "none",
    "model.vit": {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": SIDE, "patch_size": 8},
    "model.decoder_channels": 16,
    "maps.scales": [SIDE],
    "predict.scales": [SIDE],
    "labels.pamr_iterations": 2,
    "run.device": "cpu",
}


class Watch:
    """A reporter that records the state of its own process at MOMENTS."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.total = self.done = 0
        self.began = time.monotonic()

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Start counting the images of a new command."""
        self.what, self.total, self.done = what, total, done

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished images; add a row at MOMENTS."""
        self.done += count
        if self.done in [round(share * self.total) for share in MOMENTS]:
            self.look(f"{self.what}, {self.done}")

    def say(self, text: str) -> None:
        """Ignore remarks."""

    def look(self, moment: str) -> None:
        """Add a row to the table."""
        self.rows.append(
            [
                moment,
                f"{resident_memory() / MEBIBYTE:.1f}",
                str(len(list(Path("/proc/self/fd").iterdir()))),
                str(threading.active_count()),
                str(len(multiprocessing.active_children())),
                f"{time.monotonic() - self.began:.0f}",
            ]
        )


def write_images(root: Path, count: int, *, photos: bool = False) -> TaggedSet:
    """A data folder of noise, or of photo sizes, with random tags."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    rows = ["image,labels"]
    for k in range(count):
        if photos:
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            height, width = PHOTOS[k % len(PHOTOS)]
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / "images" / f"{k:06d}.jpg", quality=90)
        else:
            noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / "images" / f"{k:06d}.png", compress_level=1)
        rows.append(f"{k:06d},{';'.join(name for name in CLASSES if rng.random() < 0.5)}")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    return open_data(root)


def work(network: Network, tagged: TaggedSet, out: Path, config: Config, watch: Watch) -> None:
    """Run make-pseudo and predict on every image."""
    common: dict[str, Any] = {"device": torch.device("cpu"), "checkpoint_sha256": "0" * 64}
    make_pseudo_labels(network, tagged, out / "labels", config, watch, **common)
    watch.look("after make-pseudo")
    predict_masks(network, tagged.records, out / "masks", config, watch, **common)
    watch.look("after predict")


def main(
    images: Annotated[int, typer.Option(help="How many.")] = 10000,
    workers: Annotated[int, typer.Option(help="Loader processes.")] = 2,
    photos: Annotated[bool, typer.Option("--photos", help="Sizes of real photos in place of small noise.")] = False,
) -> None:
    """Print the table."""
    config = resolve(None, (), {**SETTINGS, "run.workers": workers})
    watch = Watch()
    with TemporaryDirectory() as folder:
        tagged = write_images(Path(folder, "data"), images, photos=photos)
        network = build_from(config, CLASSES, decoder=True)
        watch.look("before")
        work(network, tagged, Path(folder, "out"), config, watch)
    print(machine(CPU))
    print(table(["images done", "resident, MiB", "open files", "threads", "processes", "seconds"], watch.rows))


if __name__ == "__main__":
    typer.run(main)
