"""Datumaro's JSON: ``annotations/SUBSET.json`` with labels, masks, polygons and boxes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.areas import Area, BadShape, outlined, runs
from wsss.data.drawn import Shape
from wsss.data.findings import BadData, Place
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import AnnotatedImage, AnnotatedSource, Shapes, below
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import as_list, as_object, as_text, files_of, prefix_of, read_json, stated_size
from wsss.data.readers.reader import Options, Reader
from wsss.data.walking import conventional

FOLDER = "annotations"


def _files(root: Path) -> list[Path]:
    return [path for path in files_of(conventional(root, FOLDER), ".json") if _is_datumaro(prefix_of(path))]


def _is_datumaro(text: str) -> bool:
    return text.lstrip().startswith("{") and '"categories"' in text and '"label"' in text and '"items"' in text


def _sniff(root: Path, reading: Reading) -> str | None:
    found = _files(root)
    return f"{FOLDER}/{found[0].name} is a file of Datumaro" if found else None


def _open(root: Path, options: Options) -> AnnotatedSource:
    images, declared = list[AnnotatedImage](), list[str]()
    for path in _files(root):
        place = Place(path)
        whole = as_object(read_json(path), "it", place)
        kinds = as_object(as_object(whole.get("categories"), "categories", place).get("label"), "label", place)
        entries = [as_object(one, "a label", place) for one in as_list(kinds.get("labels"), "labels", place)]
        names = [as_text(one.get("name"), "name", place) for one in entries]
        declared += [name for name in names if name not in declared]
        items = as_list(whole.get("items"), "items", place)
        images += [_image(item, number, names, path, root, options) for number, item in enumerate(items)]
    photographs = all_images(root, options.note)
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=declared or None,
        source=conventional(root, FOLDER),
        finder=ImageFinder(photographs),
    )


def _image(value: Any, number: int, names: list[str], path: Path, root: Path, options: Options) -> AnnotatedImage:
    item = as_object(value, "an item", Place(path, entry=f"item {number}"))
    name = as_text(item.get("id"), "id", Place(path, entry=f"item {number}"))
    place = Place(path, entry=name)
    stored = as_object(item.get("image") or item.get("media"), "image", place)
    size = as_list(stored.get("size"), "size", place)
    found = [as_object(one, "an annotation", place) for one in as_list(item.get("annotations"), "annotations", place)]
    tags = [one for one in found if one.get("type") == "label"]
    drawn = [one for one in found if one.get("type") not in ("label", "caption")]
    wanted = options.reading.tags_from
    counted = [*([] if wanted == "shapes" else tags), *([] if wanted == "file" else drawn)]
    return AnnotatedImage(
        written=as_text(stored.get("path") or name, "path", place),
        split=path.stem,
        labels=tuple(dict.fromkeys(_label(one, names, place) for one in counted)),
        place=place,
        base=below(path, root),
        shapes=None if tags and not drawn else _shapes(drawn, names, place),
        size=stated_size(*size) if len(size) == 2 else None,
    )


def _label(annotation: dict[str, Any], names: list[str], place: Place) -> str:
    number = annotation.get("label_id")
    if type(number) is not int or not 0 <= number < len(names):
        what = f"label_id {str(number)[:20]} is none of the {len(names)} labels, counted from 0"
        raise BadData.at("annotation-unreadable", place, what, "correct it, or export the file again")
    return names[number]


def _shapes(drawn: list[dict[str, Any]], names: list[str], place: Place) -> Shapes | None:
    """The areas of an image; None where an annotation has none."""
    if any(one.get("type") not in ("mask", "polygon") for one in drawn):
        return None
    areas = [(_label(one, names, place), _area(one), _front(one, place)) for one in drawn]

    def shapes(rules: ClassRules) -> tuple[Shape, ...]:
        return tuple(Shape(rules.index(label), area, front) for label, area, front in areas)

    return shapes


def _front(annotation: dict[str, Any], place: Place) -> float:
    order = annotation.get("z_order", 0)
    if type(order) is not int or abs(order) > 2**31:
        what = f"z_order {str(order)[:20]} is no whole number"
        raise BadData.at("annotation-unreadable", place, what, "correct it")
    return float(order)


def _area(annotation: dict[str, Any]) -> Callable[[tuple[int, int]], Area]:
    if annotation.get("type") == "polygon":
        return partial(_polygon, annotation.get("points"))
    return partial(_runs, annotation.get("rle"))


def _polygon(points: Any, size: tuple[int, int]) -> Area:
    return outlined([points], size)


def _runs(rle: Any, size: tuple[int, int]) -> Area:
    stated, counts = (rle.get("size"), rle.get("counts")) if isinstance(rle, dict) else (None, None)
    if not isinstance(stated, list) or len(stated) != 2 or not isinstance(counts, str | list):
        raise BadShape("a mask without rle of size and counts")
    return runs(counts, (stated[0], stated[1]), size)


DATUMARO = Reader(
    name="datumaro",
    looks_for=f"JSON files of Datumaro in {FOLDER}",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
