"""Write the folder format: tags.csv, classes.txt, images and, where asked, masks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from wsss.data.masks import write_mask
from wsss.data.readers.folder import open_tag_file
from wsss.data.writers.writer import Export, Picture, Writer
from wsss.errors import DataError, UsageError
from wsss.files import write_whole


def write_folder(out: Path, export: Export) -> None:
    """Fill a folder; its table is read back, so that what it cannot hold is found.

    Raises:
        DataError: a label map cannot be read.
        UsageError: the table cannot hold the names of the images or classes, or no image is there.
    """
    if all(picture.image is None for picture in export.pictures):
        raise UsageError("the images of these label maps are no longer where they were", "--to coco  # needs none")
    marks = any(picture.unknown for picture in _there(export))
    images = out if marks else out / "images"
    images.mkdir(exist_ok=True)
    for picture in export.each(_there(export)):
        export.place(picture, images / picture.file)
        if export.masks and picture.label is not None:
            write_mask(out / "masks" / f"{picture.name}.png", picture.label())
    write_whole(out / "classes.txt", "".join(f"{name}\n" for name in export.classes))
    if marks:
        _write_marks(out, export)
    elif not any(_holds(out, export, notation) for notation in (";".join, as_list)):
        problem = "a table of tags cannot hold the names of these images or classes"
        raise UsageError(problem, "rename those with separators, quotes or spaces at their ends")


def _there(export: Export) -> list[Picture]:
    """The pictures whose images are there."""
    return [picture for picture in export.pictures if picture.image is not None]


def as_list(labels: Sequence[str]) -> str:
    """Labels as a cell of a table that holds any name: a JSON list."""
    return json.dumps([*labels], ensure_ascii=False)


def _holds(out: Path, export: Export, notation: Callable[[Sequence[str]], str]) -> bool:
    """Write the table with labels in this notation; whether reading it gives the same."""
    nested = any(picture.name.lower().startswith("images/") for picture in _there(export))  # would be cut off
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "labels", "split"))
    for picture in _there(export):
        image = f"images/{picture.file}" if nested else picture.file
        rows.writerow((image, notation(picture.tags), picture.split))
    path = out / "tags.csv"
    write_whole(path, text.getvalue())
    try:
        lines = open_tag_file(out, path, export.classes).lines
    except DataError:
        return False
    read = [(name, set(line.labels), line.split) for name, line in lines.items()]
    return read == [(picture.name, set(picture.tags), picture.split) for picture in _there(export)]


def _write_marks(out: Path, export: Export) -> None:
    """Write the table with a column of 1, 0 or ? for each class, which holds unknown tags."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "split", *export.classes))
    for picture in _there(export):
        marks = ("?" if name in picture.unknown else int(name in picture.tags) for name in export.classes)
        rows.writerow((picture.file, picture.split, *marks))
    write_whole(out / "tags.csv", text.getvalue())


FOLDER = Writer(
    name="folder",
    writes="tags.csv, classes.txt, images/ and, with --masks, palette PNGs in masks/",
    write=write_folder,
    needs_masks=False,
    unknown=True,
)
