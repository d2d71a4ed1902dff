"""A memory: a few small images of each class that a classifier keeps for its next extension (``train-cls --extend``).

It is an ordinary folder of images that every command reads: JPEGs, ``classes.txt``, and ``tags.csv`` with a column a
class, whose cells are 1, 0, or ? where it is unknown whether the image has the class.

Shape suffixes: K classes, H x W pixels.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from wsss.config import Reading
from wsss.data.columns import Lists
from wsss.data.dataset import CLASS_FILE, open_data
from wsss.data.readers.table_columns import NAMES, NO_CLASS, plain_column
from wsss.data.readers.tag_table import TAG_FILES
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import reduced
from wsss.errors import UsageError
from wsss.files import whole_folder

MEMORY = "memory"
"""Folder of a run."""
ABOUT = "memory.json"
"""File of a memory that says how large it may be; a folder without it is none."""
QUALITY = 85
"""Of the JPEGs, of 100."""
JPEG = b"\xff\xd8"
"""First bytes of a JPEG."""
USED_NAMES = NO_CLASS | {name for names in NAMES.values() for name in names.split()}
"""Names of columns that are never those of a class."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a memory may be.

    Attributes:
        most: bytes of all its files together.
        side: pixels; images of a larger area than such a square are resized to it.
    """

    most: int
    side: int

    def asked(self) -> dict[str, int]:
        """As ``run.json`` says it (`wsss.outputs.asked`)."""
        return {"memory": self.most, "memory_side": self.side}


def is_memory(folder: Path) -> bool:
    """Whether a folder is a memory."""
    return (folder / ABOUT).is_file()


def open_memory(folder: Path, classes: Sequence[str]) -> TaggedSet:
    """The images of a memory.

    Args:
        folder: of the memory.
        classes: of the network; those that the memory does not know of are unknown in all of its images.

    Raises:
        DataError: it is at fault.
    """
    found = open_data(folder, reading=Reading(format="table"))
    return with_classes(found, classes, unknown=[name for name in classes if name not in found.classes])


def with_classes(
    tagged: TaggedSet, classes: Sequence[str], *, unknown: Sequence[str] = (), only_present: Sequence[str] = ()
) -> TaggedSet:
    """A set with the indices of other class names, and without masks, whose indices would be those of its own.

    Args:
        tagged: its classes are among the others.
        classes: the class names.
        unknown: classes that are unknown in every image, tagged or not.
        only_present: classes that are unknown where they are not tagged.
    """
    place = {k: classes.index(name) for k, name in enumerate(tagged.classes) if name in classes}
    never, seldom = ({classes.index(name) for name in names} for names in (unknown, only_present))
    columns = tagged.columns
    tags: list[list[int]] = []
    open_: list[list[int]] = []
    for record in columns:
        has = {place[k] for k in record.tags if k in place} - never
        tags.append(sorted(has))
        open_.append(sorted(({place[k] for k in record.unknown if k in place} | never | seldom) - has))
    return replace(
        tagged,
        classes=tuple(classes),
        records=replace(columns, tags=Lists.of(tags), unknown=Lists.of(open_)),
        mask_folder=None,
        annotations=None,
    )


def write_memory(folder: Path, sources: Sequence[TaggedSet], limits: Limits, seed: int) -> None:
    """Fill a memory: as many images of each class as there is room for, never more bytes than its limit.

    The class with the fewest images so far is next; its images are drawn at random. An image counts for each class that
    it has. Those without a tag are not taken.

    Args:
        folder: to write; an earlier memory there is replaced.
        sources: images and tags, all with the same classes.
        limits: bytes and side.
        seed: of the draw.

    Raises:
        UsageError: a class cannot be a column of the table, or no image of some class fits.
        DiskError: it cannot be written.
    """
    classes = sources[0].classes
    odd = next((name for name in classes if plain_column(name) in USED_NAMES), None)
    if odd is not None:
        raise UsageError(f"a memory cannot hold a class called {odd!r}: its table has such a column", "--memory 0")
    about = json.dumps({"most": limits.most, "side": limits.side}) + "\n"
    names = "".join(f"{name}\n" for name in classes)
    header = _line(["image", *classes])
    left = limits.most - sum(len(text.encode()) for text in (about, names, header))
    lines, images = [header], list[bytes]()
    waiting = [_drawn(sources, k, seed) for k in range(len(classes))]
    count_K, taken = np.zeros(len(classes), int), set[tuple[int, int]]()
    while any(waiting):
        k = min((k for k in range(len(classes)) if waiting[k]), key=lambda k: (count_K[k], k))
        place = waiting[k].pop()
        if place in taken:
            continue
        record = sources[place[0]].records[place[1]]
        image = _jpeg(record, limits.side)
        line = _line([f"{len(images):05d}.jpg", *_cells(record, len(classes))])
        if len(image) + len(line.encode()) > left:
            waiting[k] = []  # the memory is full, but for smaller images of other classes
            continue
        left -= len(image) + len(line.encode())
        taken.add(place)
        count_K[list(record.tags)] += 1
        lines.append(line)
        images.append(image)
    if not images:
        raise UsageError(
            f"--memory {limits.most}: no image of {limits.side} pixels fits into so few bytes",
            "--memory 2000000, or a smaller --memory-side",
        )
    if is_memory(folder):
        shutil.rmtree(folder)
    with whole_folder(folder) as inside:
        (inside / "images").mkdir()
        for i, image in enumerate(images):
            (inside / "images" / f"{i:05d}.jpg").write_bytes(image)
        (inside / CLASS_FILE).write_text(names, encoding="utf-8")
        (inside / TAG_FILES[0]).write_text("".join(lines), encoding="utf-8")
        (inside / ABOUT).write_text(about, encoding="utf-8")


def bytes_of(folder: Path) -> int:
    """Bytes of all files of a memory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _drawn(sources: Sequence[TaggedSet], k: int, seed: int) -> list[tuple[int, int]]:
    """Number of the source and of the record of each image of a class, in the order of a draw."""
    found = [
        (number, i) for number, source in enumerate(sources) for i, one in enumerate(source.columns) if k in one.tags
    ]
    order = np.random.default_rng([seed, 11, k]).permutation(len(found))
    return [found[j] for j in order]


def _cells(record: Record, count: int) -> list[str]:
    """What the table says of each class."""
    return ["1" if k in record.tags else "?" if k in record.unknown else "0" for k in range(count)]


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _jpeg(record: Record, side: int) -> bytes:
    """The bytes of an image, resized; those of a JPEG that is small enough already as they are."""
    image_HW3 = record.decode()
    small_HW3 = reduced(torch.from_numpy(image_HW3), side).numpy()
    content = record.read()
    if small_HW3.shape == image_HW3.shape and content.startswith(JPEG):
        return content
    encoded = cv2.imencode(".jpg", small_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return bytes(encoded)
