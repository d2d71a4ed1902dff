"""LabelMe: a JSON file for each image, with flags of the image and drawn shapes, the later in front."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss.config import Reading
from wsss.data.areas import Area, BadShape, bitmap, boxed, filled, outlined
from wsss.data.drawn import Shape
from wsss.data.findings import BadData, Finding, Place
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource, Shapes, below
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import as_list, as_object, as_text, files_of, prefix_of, read_json, stated_size
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.text import read_text
from wsss.data.walking import is_file, is_folder, names_in, walk

LABELS = "labels.txt"
SPLITS = frozenset({"train", "val", "valid", "validation", "test", "dev"})
"""Folders that are splits."""
INSTANCE = re.compile(r"^(.+)-\d+$")
"""A label of LabelMe before version 4, which numbered the objects."""
Points = list[tuple[float, float]]


def _is_labelme(path: Path) -> bool:
    """Whether a file begins like one of LabelMe; old versions wrote their keys in any order, the long data first."""
    text = prefix_of(path)
    shaped = '"shapes"' in text and ('"imagePath"' in text or '"shape_type"' in text)
    return text.lstrip().startswith("{") and (shaped or '"imageData"' in text)


def _sniff(root: Path, reading: Reading) -> str | None:
    outer = _folders(root)
    for folder in (root, *outer, *(inner for one in outer for inner in _folders(one))):
        found = next((path for path in files_of(folder, ".json")[:5] if _is_labelme(path)), None)
        if found is not None:
            return f"{found.relative_to(root)} is a JSON file of LabelMe"
    return None


def _folders(folder: Path) -> list[Path]:
    return [folder / name for name in names_in(folder) if is_folder(folder / name)]


def _open(root: Path, options: Options) -> AnnotatedSource:
    photographs = all_images(root, options.note)
    finder, images, joined = ImageFinder(photographs), [], list[Finding]()
    for file in walk(root, note=options.note).files:
        if file.lower().endswith(".json") and _is_labelme(root / file):
            try:
                images.append(_image(root / file, root, finder, options.reading, joined))
            except BadData as error:
                options.note(error)
    if joined:
        what = f"{len(joined)} labels like {joined[0].what} are objects of one class, as LabelMe wrote before version 4"
        fix = "rename the labels if the number belongs to the class"
        options.note(BadData(f"{root}: {what}", fix, joined))
    names = read_text(root / LABELS, options.reading.encoding).split("\n") if is_file(root / LABELS) else []
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=[name.strip() for name in names if name.strip()] or None,
        source=root,
        finder=finder,
    )


def _image(path: Path, root: Path, finder: ImageFinder, reading: Reading, joined: list[Finding]) -> AnnotatedImage:
    """One file; labels of numbered objects are appended to ``joined``."""
    place, base, wanted = Place(path), below(path, root), reading.tags_from
    whole = as_object(read_json(path), "it", place)
    head = base.split("/", 1)[0]
    split = head if head.casefold() in SPLITS else ONLY_SPLIT
    written = as_text(whole.get("imagePath") or path.stem, "imagePath", place).replace("\\", "/").rsplit("/", 1)[-1]
    if finder.find(written, place, split=split, base=base) is None:
        written = path.stem
    shapes = [as_object(one, "a shape", place) for one in as_list(whole.get("shapes"), "shapes", place)]
    flags = as_object(whole.get("flags"), "flags", place)
    numbered = str(whole.get("version") or "9").split(".")[0] in "0123"
    labels = [_label(one, numbered, place, joined) for one in shapes]
    tags = [name for name, is_set in flags.items() if is_set is True and wanted != "shapes"]
    return AnnotatedImage(
        written=written,
        split=split,
        labels=tuple(dict.fromkeys([*tags, *([] if wanted == "file" else labels)])),
        place=place,
        base=base,
        shapes=None if flags and not shapes else _shapes(shapes, labels),
        size=stated_size(whole.get("imageHeight"), whole.get("imageWidth")),
    )


def _label(shape: dict[str, Any], numbered: bool, place: Place, joined: list[Finding]) -> str:
    """The class of a shape; ``car-1`` of an old version is a car."""
    label = as_text(shape.get("label"), "a label", place)
    found = INSTANCE.match(label) if numbered and shape.get("group_id") is None else None
    if found is None:
        return label
    joined.append(Finding("class-joined", place, f"'{label}' (class '{found[1]}')"))
    return found[1]


def _shapes(shapes: list[dict[str, Any]], labels: list[str]) -> Shapes | None:
    """The areas of an image; None where a shape has none."""
    if any(one.get("shape_type") not in (None, *AREAS) for one in shapes):
        return None
    areas = [partial(_area, one.get("shape_type") or "polygon", one.get("points"), one.get("mask")) for one in shapes]

    def drawn(rules: ClassRules) -> tuple[Shape, ...]:
        pairs = enumerate(zip(labels, areas, strict=True))
        return tuple(Shape(rules.index(label), area, float(order)) for order, (label, area) in pairs)

    return drawn


def _area(kind: str, points: Any, mask: Any, size: tuple[int, int]) -> Area:
    try:
        pairs = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadShape("points that are no pairs of numbers") from error
    if not pairs or not np.isfinite(pairs).all():
        raise BadShape("no points, or points that are no finite numbers")
    return AREAS[kind](pairs, mask, size)


def _polygon(points: Points, mask: Any, size: tuple[int, int]) -> Area:
    return outlined([[number for point in points for number in point]], size)


def _rectangle(points: Points, mask: Any, size: tuple[int, int]) -> Area:
    (left, right), (top, bottom) = (sorted(side) for side in _two(points))
    return boxed(left, top, right, bottom, size)


def _circle(points: Points, mask: Any, size: tuple[int, int]) -> Area:
    """The pixels whose centres are inside a circle, given by its centre and a point of its rim."""
    (x, other_x), (y, other_y) = _two(points)
    rows, columns = np.ogrid[: size[0], : size[1]]
    inside_HW = np.hypot(columns + 0.5 - x, rows + 0.5 - y) <= np.hypot(other_x - x, other_y - y)
    return filled(inside_HW)


def _two(points: Points) -> Iterator[tuple[float, ...]]:
    """The two x and the two y of two points."""
    if len(points) != 2:
        raise BadShape(f"{len(points)} points; a rectangle or circle has 2")
    return iter(zip(*points, strict=True))


def _mask(points: Points, mask: Any, size: tuple[int, int]) -> Area:
    """A PNG in base64 whose upper left corner is the first point."""
    return bitmap(png_mask(mask), round(points[0][0]), round(points[0][1]), size)


def png_mask(text: Any, unpack: Callable[[bytes], bytes] = bytes) -> Any:
    """The pixels of a PNG in base64 that are not 0, (h, w) bool; of an image with alpha, those that are opaque.

    Raises:
        BadShape: it is none.
    """
    try:
        with Image.open(io.BytesIO(unpack(base64.b64decode(text, validate=True))), formats=["PNG"]) as image:
            bands = image.getbands()
            value_hw = np.asarray(image.getchannel("A") if "A" in bands else image)
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadShape("a mask that is no PNG in base64") from error
    return value_hw > 0 if value_hw.ndim == 2 else (value_hw > 0).any(axis=2)


AREAS: dict[str, Callable[[Points, Any, tuple[int, int]], Area]] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _mask,
}
"""Shapes that have an area."""

LABELME = Reader(
    name="labelme",
    looks_for="JSON files of LabelMe",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
