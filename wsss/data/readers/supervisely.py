"""Supervisely: ``meta.json``, and in each data set folder ``img`` and ``ann`` with a JSON file for each image."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.areas import Area, BadShape, bitmap, filled, outlined, pixels
from wsss.data.drawn import Shape
from wsss.data.findings import Place
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import AnnotatedImage, AnnotatedSource, Shapes
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import as_list, as_object, as_text, files_of, read_json, stated_size
from wsss.data.readers.labelme import png_mask
from wsss.data.readers.reader import Options, Reader
from wsss.data.walking import is_file, is_folder, names_in

META = "meta.json"
MAX_PNG = 2**26
"""Bytes of an unpacked bitmap, at most."""


def _sets(root: Path) -> list[str]:
    """Folders of data sets."""
    return [name for name in names_in(root) if is_folder(root / name / "img") and is_folder(root / name / "ann")]


def _sniff(root: Path, reading: Reading) -> str | None:
    return f"{META} with img and ann in {_sets(root)[0]}" if is_file(root / META) and _sets(root) else None


def _open(root: Path, options: Options) -> AnnotatedSource:
    place = Place(root / META)
    meta = as_object(read_json(root / META), "it", place)
    declared = [
        as_text(as_object(one, "an entry", place).get(key), key, place)
        for part, key in (("classes", "title"), ("tags", "name"))
        for one in as_list(meta.get(part), part, place)
    ]
    photographs, images = all_images(root, options.note), []
    for name in _sets(root):
        for path in files_of(root / name / "ann", ".json"):
            images.append(_image(path, name, options))
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=list(dict.fromkeys(declared)) or None,
        source=root / META,
        finder=ImageFinder(photographs),
    )


def _image(path: Path, split: str, options: Options) -> AnnotatedImage:
    place, wanted = Place(path), options.reading.tags_from
    whole = as_object(read_json(path), "it", place)
    tags = [as_object(one, "a tag", place) for one in as_list(whole.get("tags"), "tags", place)]
    objects = [as_object(one, "an object", place) for one in as_list(whole.get("objects"), "objects", place)]
    titles = [as_text(one.get("classTitle"), "classTitle", place) for one in objects]
    names = [as_text(one.get("name"), "name", place) for one in tags]
    size = as_object(whole.get("size"), "size", place)
    return AnnotatedImage(
        written=path.stem,
        split=split,
        labels=tuple(
            dict.fromkeys([*([] if wanted == "file" else titles), *([] if wanted == "shapes" else names)]),
        ),
        place=place,
        base=f"{split}/img/",
        shapes=None if tags and not objects else _shapes(objects, titles),
        size=stated_size(size.get("height"), size.get("width")),
    )


def _shapes(objects: list[dict[str, Any]], titles: list[str]) -> Shapes | None:
    """The areas of an image, the later in front; None where an object has none."""
    if any(one.get("geometryType") not in ("polygon", "bitmap") for one in objects):
        return None
    areas = [_area(one) for one in objects]

    def shapes(rules: ClassRules) -> tuple[Shape, ...]:
        pairs = enumerate(zip(titles, areas, strict=True))
        return tuple(Shape(rules.index(title), area, float(order)) for order, (title, area) in pairs)

    return shapes


def _area(one: dict[str, Any]) -> Callable[[tuple[int, int]], Area]:
    if one.get("geometryType") == "polygon":
        return partial(_polygon, one.get("points"))
    return partial(_bitmap, one.get("bitmap"))


def _polygon(points: Any, size: tuple[int, int]) -> Area:
    """An outline without its holes."""
    outer, holes = (points.get("exterior"), points.get("interior")) if isinstance(points, dict) else (None, None)
    if not isinstance(outer, list) or not isinstance(holes or [], list):
        raise BadShape("a polygon without exterior")
    inside_HW = pixels(outlined([outer], size))
    if holes:
        inside_HW &= ~pixels(outlined(holes, size))
    return filled(inside_HW)


def _bitmap(value: Any, size: tuple[int, int]) -> Area:
    data, origin = (value.get("data"), value.get("origin")) if isinstance(value, dict) else (None, None)
    if not isinstance(origin, list) or len(origin) != 2 or not all(type(number) is int for number in origin):
        raise BadShape("a bitmap without an origin of two whole numbers")
    return bitmap(png_mask(data, _unpacked), origin[0], origin[1], size)


def _unpacked(content: bytes) -> bytes:
    """The content of a zlib stream, which must not be huge."""
    try:
        return zlib.decompressobj().decompress(content, MAX_PNG)
    except zlib.error as error:
        raise ValueError(str(error)) from error


SUPERVISELY = Reader(
    name="supervisely",
    looks_for=f"{META} with folders img and ann",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
