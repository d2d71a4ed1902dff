"""One class of VOC animals in a set of two looks: photos with the class from one source, those without from another.

    python benchmarks/one_class.py OUT --data DIR --of horse --with 100 --without 100

That is what a new user's set looks like. Photos with the class are cropped, compressed and tinted one way, those
without another way; tags.csv, masks of class indices 0 and 1 (255 is ignored), and the splits ``train`` (of
``train_aug`` without ``train``), ``choose`` (the ``train`` of VOC animals) and ``val``, whose photos stay as they are.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, write_mask
from wsss.data.records import Record

LOOKS = {True: (0.8, 55, (1.08, 1.0, 0.88)), False: (1.0, 85, (0.92, 1.0, 1.1))}
"""With and without the class: side of a random crop relative to the photo, JPEG quality, factors of the colours."""


def look(photo: Image.Image, side: float, tint: tuple[float, float, float], random: np.random.Generator) -> Image.Image:
    """A crop of a photo with its colours multiplied."""
    width, height = (round(side * length) for length in photo.size)
    left = int(random.integers(photo.width - width + 1))
    top = int(random.integers(photo.height - height + 1))
    pixels_HW3 = np.asarray(photo.crop((left, top, left + width, top + height)), np.float32) * np.array(tint)
    return Image.fromarray(pixels_HW3.clip(0, 255).round().astype(np.uint8))


def mask_of(truth_HW: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    """(H, W) uint8: 1 where the class is, 255 where the truth ignores."""
    mask_HW: NDArray[np.uint8] = (truth_HW == index).astype(np.uint8)
    mask_HW[truth_HW == IGNORE_INDEX] = IGNORE_INDEX
    return mask_HW


def drawn(found: list[Record], count: int, random: np.random.Generator) -> list[Record]:
    """So many records at random, in their order."""
    return [found[i] for i in sorted(random.permutation(len(found))[:count])]


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    of: str = "horse",
    with_: Annotated[int, typer.Option("--with")] = 100,
    without: int = 100,
    seed: int = 0,
) -> None:
    """Write OUT, a data folder that every command reads."""
    random = np.random.default_rng(seed)
    everything, choose, val = (open_data(data, split=split) for split in ("train_aug", "train", "val"))
    tag = everything.classes.index(of)
    kept_back = {record.name for record in choose.records}
    records = [record for record in everything.records if record.name not in kept_back]
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for has, count in ((True, with_), (False, without)):
        side, quality, tint = LOOKS[has]
        for record in drawn([record for record in records if (tag in record.tags) == has], count, random):
            photo = look(Image.fromarray(record.decode()), side, tint, random)
            photo.save(out / "images" / f"{record.name}.jpg", quality=quality)
            rows.append((f"images/{record.name}.jpg", of if has else "", "train"))
    for name, split in (("choose", choose), ("val", val)):
        for record in split.records:
            Image.fromarray(record.decode()).save(out / "images" / f"{record.name}.jpg", quality=95)
            truth_HW = split.truth(record)
            assert truth_HW is not None
            write_mask(out / "masks" / f"{record.name}.png", mask_of(truth_HW, tag + 1))
            rows.append((f"images/{record.name}.jpg", of if tag in record.tags else "", name))
    with (out / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "labels", "split"), *rows])


if __name__ == "__main__":
    typer.run(main)
