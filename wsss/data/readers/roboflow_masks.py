"""Roboflow's semantic masks: ``_classes.csv`` with a class for each pixel value, and ``NAME_mask.png`` beside NAME."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from wsss.config import Reading
from wsss.data.findings import BadData, Note, Place, refuse
from wsss.data.masks import IGNORE_INDEX
from wsss.data.near_names import tidy
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource
from wsss.data.readers.class_rules import BACKGROUND
from wsss.data.readers.cvat_masks import MaskSource, mask_labels, tags_must_be_told
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import prefix_of
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.text import read_text
from wsss.data.walking import is_file, names_in

TABLE, MASK = "_classes.csv", "_mask"


def _tables(root: Path) -> dict[str, Path]:
    """The class table of each split; a split is a folder, "" the data folder itself."""
    places = {"": root / TABLE, **{name: root / name / TABLE for name in names_in(root)}}
    return {split: path for split, path in places.items() if is_file(path) and _is_table(prefix_of(path))}


def _is_table(text: str) -> bool:
    return [field.strip().casefold() for field in text.split("\n", 1)[0].split(",")] == ["pixel value", "class"]


def _sniff(root: Path, reading: Reading) -> str | None:
    return f"{TABLE} with a class for each pixel value" if _tables(root) else None


def _photographs(root: Path, note: Note = refuse) -> Photographs:
    found = find_images(root, note=note)
    return replace(found, files={name: file for name, file in found.files.items() if not name.endswith(MASK)})


def read_values(path: Path, encoding: str = "utf-8") -> dict[int, str]:
    """The class of each pixel value.

    Raises:
        DataError: a line is no number 0..255 and a name, or repeats a number.
    """
    values: dict[int, str] = {}
    lines = [line for line in enumerate(csv.reader(io.StringIO(read_text(path, encoding))), start=1) if line[1]]
    for number, fields in lines[1:]:
        text = fields[0].strip()
        if len(fields) < 2 or not (text.isascii() and text.isdecimal()) or int(text[:9]) > 255 or int(text) in values:
            what = f"'{','.join(fields)[:60]}' is no value 0..255 and class, or repeats a value"
            raise BadData.at("table-format", Place(path, number), what, "write VALUE,CLASS")
        values[int(text)] = tidy(fields[1])
    return values


def _open(root: Path, options: Options) -> MaskSource:
    tables = _tables(root)
    table = next(iter(tables.values()))
    values = read_values(table, options.reading.encoding)
    for path in tables.values():
        if read_values(path, options.reading.encoding) != values:
            what, fix = f"the classes are not those of {table}", "export the splits together"
            raise BadData.at("table-format", path, what, fix)
    if options.need_tags and options.reading.tags_from != "masks":
        raise tags_must_be_told(table)
    names = tuple(values.get(value, "") for value in range(max(values, default=-1) + 1))
    names += ("",) * (IGNORE_INDEX - len(names)) + ("255",) * (len(names) <= IGNORE_INDEX)
    photographs = _photographs(root, options.note)
    images, files = [], dict[str, Path]()
    for name, file in photographs.files.items():
        split = file.split("/", 1)[0] if "/" in file else ""
        if split not in tables:
            continue
        path = root / f"{name}{MASK}.png"
        labels = None
        if is_file(path):
            files[name] = path
            labels = mask_labels(path, names, None, table) if options.reading.tags_from == "masks" else ()
        place = Place(root / file)
        images.append(AnnotatedImage(written=file, split=split or ONLY_SPLIT, labels=labels, place=place))
    declared = tuple(name for name in values.values() if name.casefold() not in BACKGROUND)
    source = AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=declared,
        source=table,
        finder=ImageFinder(photographs),
    )
    return MaskSource(source, files, names, None, table)


ROBOFLOW_MASKS = Reader(
    name="roboflow-masks",
    looks_for=f"{TABLE} with the header Pixel Value, Class",
    sniff=_sniff,
    open=_open,
    photographs=_photographs,
    lists_all=False,
)
