"""The VGG Image Annotator: JSON of versions 1 and 2, and CSV with JSON in its cells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss.config import Reading
from wsss.data.areas import Area, BadShape, boxed, filled, outlined
from wsss.data.drawn import Shape
from wsss.data.findings import BadData, Place
from wsss.data.near_names import NearNames
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource, Shapes
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import as_list, as_object, as_text, candidates, only, prefix_of, read_json
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.text import read_text

PROJECT = "_via_img_metadata"
SHAPE, ATTRIBUTES = "region_shape_attributes", "region_attributes"


@dataclass(frozen=True, slots=True)
class Region:
    """One region: its shape and its attributes."""

    shape: dict[str, Any]
    attributes: dict[str, Any]


Entry = tuple[str, Place, list[Region]]
"""The name of an image, where it stands, and its regions."""


def _files(root: Path, reading: Reading) -> list[Path]:
    return [path for path in candidates(root, reading, ".json", ".csv") if _is_via(path)]


def _is_via(path: Path) -> bool:
    text = prefix_of(path)
    if path.suffix.lower() == ".csv":
        return SHAPE in text.split("\n", 1)[0]
    last = '"file_attributes"' in text or '"shape_attributes"' in text
    return f'"{PROJECT}"' in text or (last and '"filename"' in text and '"regions"' in text)


def _sniff(root: Path, reading: Reading) -> str | None:
    found = _files(root, reading)
    return f"{found[0].name} is a file of the VGG Image Annotator" if found else None


def _open(root: Path, options: Options) -> AnnotatedSource:
    path = only(_files(root, options.reading), root)
    entries = _csv_entries(path, options.reading.encoding) if path.suffix.lower() == ".csv" else _json_entries(path)
    field = _class_attribute([region for _, _, regions in entries for region in regions], options.reading, path)
    photographs = all_images(root, options.note)
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=[_image(name, place, regions, field) for name, place, regions in entries],
        declared=None,
        source=path,
        finder=ImageFinder(photographs),
    )


def _json_entries(path: Path) -> list[Entry]:
    whole = as_object(read_json(path), "it", Place(path))
    entries = []
    for key, value in as_object(whole.get(PROJECT, whole), PROJECT, Place(path)).items():
        place = Place(path, entry=key)
        entry = as_object(value, "an image", place)
        regions = entry.get("regions")
        listed = [*regions.values()] if isinstance(regions, dict) else as_list(regions, "regions", place)
        found = [as_object(one, "a region", place) for one in listed]
        name = as_text(entry.get("filename"), "filename", place)
        entries.append((name, place, [_region(one, "shape_attributes", place) for one in found]))
    return entries


def _csv_entries(path: Path, encoding: str) -> list[Entry]:
    """Images of a CSV file: a line for each region, or one with region_count 0."""
    entries: dict[str, Entry] = {}
    table = csv.DictReader(io.StringIO(read_text(path, encoding)))
    try:
        rows = [(table.line_num, row) for row in table]
    except csv.Error as error:
        raise BadData.at("table-format", path, f"not CSV ({error})", "export it again") from error
    for number, row in rows:
        place, name = Place(path, number), row.get("filename") or row.get("#filename")
        if not name:
            raise BadData.at("table-fields", place, "no filename", "export it again")
        shape, attributes = (_cell(row.get(key), key, place) for key in (SHAPE, ATTRIBUTES))
        regions = entries.setdefault(name, (name, place, []))[2]
        if shape:
            regions.append(Region(shape, attributes))
    return [*entries.values()]


def _cell(text: str | None, key: str, place: Place) -> dict[str, Any]:
    try:
        return as_object(json.loads(text or "{}"), key, place)
    except (ValueError, RecursionError) as error:
        raise BadData.at("table-fields", place, f"{key} is not JSON ({error})", "export it again") from error


def _region(value: dict[str, Any], shape: str, place: Place) -> Region:
    return Region(as_object(value.get(shape), shape, place), as_object(value.get(ATTRIBUTES), ATTRIBUTES, place))


def _class_attribute(regions: Sequence[Region], reading: Reading, path: Path) -> str | None:
    """The attribute that names the class: the one asked for, or the only one, or the only one that no region lacks.

    Raises:
        DataError: there are several, or none of this name.
    """
    names = dict.fromkeys(name for region in regions for name in region.attributes)
    if reading.tag_field is not None and regions:
        if reading.tag_field not in names:
            near = NearNames(names).ask(reading.tag_field)
            what = f"no attribute '{reading.tag_field}'{near}; there are {', '.join(names)}"
            raise BadData.at("tag-field", path, what, f"--tag-field {next(iter(names), 'NAME')}")
        return reading.tag_field
    full = [name for name in names if all(_words(region.attributes.get(name)) for region in regions)]
    found = full if len(full) == 1 else [*names]
    if len(found) > 1:
        what = f"several attributes of regions: {', '.join(found)}"
        raise BadData.at("tag-field", path, what, f"--tag-field {found[0]}")
    return found[0] if found else None


def _words(value: Any) -> tuple[str, ...]:
    """The labels in the value of an attribute: a text, or the boxes that are ticked."""
    if isinstance(value, dict):
        return tuple(name for name, ticked in value.items() if ticked is True)
    return (value.strip(),) if isinstance(value, str) and value.strip() else ()


def _image(name: str, place: Place, regions: Sequence[Region], field: str | None) -> AnnotatedImage:
    labels = [_words(region.attributes.get(field or "")) for region in regions]
    return AnnotatedImage(
        written=name,
        split=ONLY_SPLIT,
        labels=tuple(dict.fromkeys(label for words in labels for label in words)),
        place=place,
        shapes=_shapes(regions, labels),
    )


def _shapes(regions: Sequence[Region], labels: Sequence[tuple[str, ...]]) -> Shapes | None:
    """The areas of an image; None where a region has none, or not one class."""
    if any(str(region.shape.get("name")) not in AREAS for region in regions) or any(len(one) != 1 for one in labels):
        return None
    areas = [(words[0], partial(_area, region.shape)) for region, words in zip(regions, labels, strict=True)]

    def shapes(rules: ClassRules) -> tuple[Shape, ...]:
        return tuple(Shape(rules.index(label), area) for label, area in areas)

    return shapes


def _area(shape: dict[str, Any], size: tuple[int, int]) -> Area:
    return AREAS[shape["name"]](shape, size)


def _numbers(shape: dict[str, Any], keys: Iterable[str]) -> list[float]:
    try:
        numbers = [float(shape[key]) for key in keys]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadShape(f"a {shape['name']} without numbers for {', '.join(keys)}") from error
    if not np.isfinite(numbers).all():
        raise BadShape(f"a {shape['name']} with a number that is not finite")
    return numbers


def _polygon(shape: dict[str, Any], size: tuple[int, int]) -> Area:
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise BadShape("a polygon without as many x as y")
    return outlined([[number for point in zip(xs, ys, strict=True) for number in point]], size)


def _rectangle(shape: dict[str, Any], size: tuple[int, int]) -> Area:
    x, y, width, height = _numbers(shape, ("x", "y", "width", "height"))
    return boxed(x, y, x + width, y + height, size)


def _ellipse(shape: dict[str, Any], size: tuple[int, int]) -> Area:
    """The pixels whose centres are inside a circle or ellipse; ``theta`` turns it, in radians."""
    radii = ("r", "r") if shape["name"] == "circle" else ("rx", "ry")
    x, y, across, down = _numbers(shape, ("cx", "cy", *radii))
    theta = _numbers(shape, ("theta",))[0] if "theta" in shape else 0.0
    if across <= 0 or down <= 0:
        raise BadShape("a circle or ellipse without a radius")
    rows, columns = np.ogrid[: size[0], : size[1]]
    along = (columns + 0.5 - x) * np.cos(theta) + (rows + 0.5 - y) * np.sin(theta)
    beside = (rows + 0.5 - y) * np.cos(theta) - (columns + 0.5 - x) * np.sin(theta)
    return filled(np.hypot(along / across, beside / down) <= 1)


AREAS: dict[str, Callable[[dict[str, Any], tuple[int, int]], Area]] = {
    "polygon": _polygon,
    "rect": _rectangle,
    "circle": _ellipse,
    "ellipse": _ellipse,
}
"""Shapes that have an area."""

VIA = Reader(
    name="via",
    looks_for="a JSON or CSV file of the VGG Image Annotator",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
