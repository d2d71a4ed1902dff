"""CVAT's XML for images 1.1: tags of whole images, polygons, masks and boxes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from wsss.config import Reading
from wsss.data.areas import Area, BadShape, outlined, row_runs
from wsss.data.drawn import Shape
from wsss.data.findings import BadData, Place
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource, Shapes
from wsss.data.readers.annotations import xml_tree
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import candidates, only, prefix_of
from wsss.data.readers.reader import Options, Reader

MAX_XML = 2**30
"""Bytes of an XML file, at most."""
SHAPES = ("polygon", "mask", "box", "ellipse", "polyline", "points", "skeleton", "cuboid")


def _files(root: Path, reading: Reading) -> list[Path]:
    return [path for path in candidates(root, reading, ".xml") if "<annotations" in prefix_of(path)]


def _sniff(root: Path, reading: Reading) -> str | None:
    found = _files(root, reading)
    return f"{found[0].name} is an XML file of CVAT" if found else None


def _open(root: Path, options: Options) -> AnnotatedSource:
    path = only(_files(root, options.reading), root)
    tree = xml_tree(path, MAX_XML)
    if tree is None or tree.tag != "annotations" or tree.find("track") is not None:
        what = "tracks of a video" if tree is not None and tree.find("track") is not None else "no annotations of CVAT"
        raise BadData.at("annotation-unreadable", path, what, "export it again as 'CVAT for images 1.1'")
    photographs = all_images(root, options.note)
    labels = [name.text or "" for name in tree.iterfind("meta/*/labels/label/name")]
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=[_image(one, path, options.reading) for one in tree.iterfind("image")],
        declared=[label for label in labels if label.strip()] or None,
        source=path,
        finder=ImageFinder(photographs),
    )


def _image(element: Element, path: Path, reading: Reading) -> AnnotatedImage:
    name = element.get("name", "")
    place = Place(path, entry=name or f"image {element.get('id')}")
    if not name.strip():
        raise BadData.at("annotation-unreadable", place, "an image without a name", "export the file again")
    tags = [one for one in element if one.tag == "tag" and reading.tags_from != "shapes"]
    drawn = [one for one in element if one.tag in SHAPES]
    labelled = [*tags, *([] if reading.tags_from == "file" else drawn)]
    for one in labelled:
        if not one.get("label", "").strip():
            raise BadData.at("annotation-unreadable", place, f"a {one.tag} without a label", "export the file again")
    order = sorted(labelled, key=lambda one: one.tag == "tag")
    return AnnotatedImage(
        written=name,
        split=element.get("subset") or ONLY_SPLIT,
        labels=tuple(dict.fromkeys(one.get("label", "") for one in order)),
        place=place,
        shapes=None if not drawn and len(element) else _shapes(drawn, place),
        size=_size(element),
    )


def _size(element: Element) -> tuple[int, int] | None:
    height, width = element.get("height", ""), element.get("width", "")
    whole = all(text.isascii() and text.isdecimal() and len(text) < 10 for text in (height, width))
    return (int(height), int(width)) if whole else None


def _shapes(drawn: list[Element], place: Place) -> Shapes | None:
    """The areas of an image; None where a shape has none."""
    if any(one.tag not in ("polygon", "mask") for one in drawn):
        return None
    areas = [(one.get("label", ""), _area(one), _front(one, place)) for one in drawn]

    def shapes(rules: ClassRules) -> tuple[Shape, ...]:
        return tuple(Shape(rules.index(label), area, front) for label, area, front in areas)

    return shapes


def _front(element: Element, place: Place) -> float:
    text = element.get("z_order", "0")
    try:
        return float(int(text))
    except (ValueError, OverflowError) as error:
        what = f"z_order '{text[:40]}' is no whole number"
        raise BadData.at("annotation-unreadable", place, what, "correct it") from error


def _area(element: Element) -> Callable[[tuple[int, int]], Area]:
    if element.tag == "polygon":
        return partial(_polygon, element.get("points", ""))
    numbers = tuple(element.get(key, "") for key in ("left", "top", "width", "height"))
    return partial(_mask, element.get("rle", ""), numbers)


def _polygon(points: str, size: tuple[int, int]) -> Area:
    """A polygon written as ``x,y;x,y``."""
    try:
        pairs = [[float(number) for number in point.split(",")] for point in points.split(";") if point.strip()]
    except ValueError as error:
        raise BadShape(f"points that are no numbers: {points[:40]}") from error
    if any(len(pair) != 2 for pair in pairs):
        raise BadShape("points that are no pairs x,y")
    return outlined([[number for pair in pairs for number in pair]], size)


def _mask(rle: str, box: tuple[str, ...], size: tuple[int, int]) -> Area:
    """Run lengths along the rows of a box (left, top, width, height)."""
    try:
        counts = [int(count) for count in rle.split(",") if count.strip()]
        left, top, width, height = (int(number) for number in box)
    except ValueError as error:
        raise BadShape("a mask whose rle, left, top, width or height is no whole number") from error
    return row_runs(counts, left, top, width, height, size)


CVAT_XML = Reader(
    name="cvat-xml",
    looks_for="an XML file of CVAT for images",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
