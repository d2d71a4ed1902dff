"""One COCO file as columns: images, categories, and which category each annotation has. Outlines stay on the disk."""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from wsss.data.areas import Area, BadShape, outlined, runs
from wsss.data.findings import BadData, Note, Place
from wsss.data.readers.json_stream import elements
from wsss.reporting import Reporter

LISTS = frozenset({"images", "annotations", "categories"})
OFFICIAL = {1: "person", 3: "car", 18: "dog", 90: "toothbrush"}
"""Some of the 80 categories of the official files."""
WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
MEGABYTE = 1_000_000
CROWD, AREA, BOX = 1, 2, 4
"""Bits of ``CocoFile.flags``."""


@dataclass(slots=True)
class CocoFile:
    """What is kept of a file; annotations are sorted as in the file.

    Attributes:
        path: the file.
        images: id, written name and (H, W) or None, in the order of the file.
        categories: name and supercategory by id.
        rows: of each annotation, the index of its image id in ``ids``.
        kinds: of each annotation, the index of its category id in ``ids``.
        flags: of each annotation, CROWD, AREA and BOX.
        starts, lengths: of each annotation, its bytes in the file.
        ids: all ids that annotations use.
        attributes: whether annotations have ``attributes``, as CVAT writes them.
        url: where the file says that it comes from.
    """

    path: Path
    images: list[tuple[Hashable, str, tuple[int, int] | None]] = field(default_factory=list)
    categories: dict[Hashable, tuple[str, str]] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("i"))
    kinds: array[int] = field(default_factory=lambda: array("i"))
    flags: array[int] = field(default_factory=lambda: array("b"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("i"))
    ids: list[Hashable] = field(default_factory=list)
    attributes: bool = False
    url: str = ""

    def is_official(self) -> bool:
        """Whether it is a file of the COCO site, by its address or its categories."""
        named = {key: self.categories.get(key, ("", ""))[0] for key in OFFICIAL}
        return "cocodataset.org" in self.url or "mscoco.org" in self.url or named == OFFICIAL


def read_coco(path: Path, note: Note, reporter: Reporter | None = None) -> CocoFile:
    """Scan a file; faulty elements are noted and left out.

    Raises:
        BadData: it is no JSON, or panoptic or stuff annotations.
    """
    found = CocoFile(path)
    known: dict[Hashable, int] = {}
    seen: set[Hashable] = set()
    done = _begin(path, reporter)
    for key, value, start, length in elements(path, LISTS, unread="segmentation"):
        done(start + length)
        if key == "info" and isinstance(value, dict):
            found.url = str(value.get("url") or "")
        if key not in LISTS:
            continue
        try:
            if not isinstance(value, dict):
                raise ValueError("is no object")
            if key == "images":
                _image(found, value, seen)
            elif key == "categories":
                _category(found, value)
            else:
                _annotation(found, value, known, start, length)
        except ValueError as error:
            what = f"an element of '{key}' at byte {start} {error}"
            note(BadData.at("annotation-unreadable", path, what, "correct it or export the file again"))
    found.ids = list(known)
    ids = [key for key in found.categories if isinstance(key, int)]
    if ids and len(ids) == len(found.categories) and min(ids) >= 92 and max(ids) <= 183:
        raise _no_instances(path, "stuff annotations")
    return found


def _begin(path: Path, reporter: Reporter | None) -> Callable[[int], None]:
    """Begins the progress of reading a file, in megabytes; to be called with the number of bytes that were read."""
    megabytes = 0

    def done(read: int) -> None:
        nonlocal megabytes
        if reporter is not None and read >= (megabytes + 1) * MEGABYTE:
            reporter.advance(read // MEGABYTE - megabytes)
            megabytes = read // MEGABYTE

    if reporter is not None:
        reporter.begin(f"reading {path.name} (MB)", path.stat().st_size // MEGABYTE)
    return done


def _no_instances(path: Path, what: str) -> BadData:
    fix = "give the file of objects, instances_*.json: --tags annotations/instances_train2017.json"
    return BadData.at("annotation-unreadable", path, f"{what}, which are not read", fix)


def _id(value: dict[str, Any], key: str) -> Hashable:
    found = value.get(key)
    if isinstance(found, float) and found.is_integer():
        return int(found)
    if isinstance(found, str) and WHOLE.fullmatch(found):  # "7" and 7 are one id, however programs write it
        return int(found)
    if not isinstance(found, int | str) or isinstance(found, bool):
        raise ValueError(f"has no '{key}' that is a whole number or a text")
    return found


def _image(found: CocoFile, value: dict[str, Any], seen: set[Hashable]) -> None:
    key, name = _id(value, "id"), value.get("file_name")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError("has no 'file_name'")
    if key in seen:
        raise ValueError(f"repeats the image id {key}")
    seen.add(key)
    size = (value.get("height"), value.get("width"))
    whole = all(isinstance(side, int | float) and 0 < side < 2**31 for side in size)
    found.images.append((key, name, (int(size[0]), int(size[1])) if whole else None))  # type: ignore[arg-type]


def _category(found: CocoFile, value: dict[str, Any]) -> None:
    if "isthing" in value:
        raise _no_instances(found.path, "panoptic annotations")
    key, name = _id(value, "id"), value.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("has no 'name'")
    if key in found.categories:
        raise ValueError(f"repeats the category id {key}")
    above = value.get("supercategory")
    found.categories[key] = (name.strip(), above.strip() if isinstance(above, str) else "")


def _annotation(found: CocoFile, value: dict[str, Any], known: dict[Hashable, int], start: int, length: int) -> None:
    if "segments_info" in value:
        raise _no_instances(found.path, "panoptic annotations")
    image, category = _id(value, "image_id"), _id(value, "category_id")
    drawn = value.get("segmentation")
    crowd = value.get("iscrowd") in (1, "1")
    area = bool(drawn.get("counts")) if isinstance(drawn, dict) else isinstance(drawn, list) and any(drawn)
    found.rows.append(known.setdefault(image, len(known)))
    found.kinds.append(known.setdefault(category, len(known)))
    found.flags.append(CROWD * crowd + AREA * area + BOX * bool(value.get("bbox")))
    found.starts.append(start)
    found.lengths.append(length)
    found.attributes = found.attributes or "attributes" in value


def area_at(path: Path, start: int, length: int) -> Callable[[tuple[int, int]], Area]:
    """The pixels of the annotation at these bytes of a file, read when they are asked for."""
    return partial(_area, path, start, length)


def _area(path: Path, start: int, length: int, size: tuple[int, int]) -> Area:
    try:
        with path.open("rb") as file:
            file.seek(start)
            drawn = json.loads(file.read(length))["segmentation"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadShape(f"it is no JSON, or the file has changed since it was read ({error})") from error
    if isinstance(drawn, dict):
        counts, stated = drawn.get("counts"), drawn.get("size")
        if not isinstance(counts, list | str) or not isinstance(stated, list):
            raise BadShape("run lengths without 'counts' and 'size'")
        return runs(counts, tuple(stated), size)
    flat = not any(isinstance(outline, list) for outline in drawn)
    return outlined([drawn] if flat else [outline for outline in drawn if outline != []], size)


def place(file: CocoFile, name: str) -> Place:
    """The entry of an image."""
    return Place(file.path, entry=sys.intern(name))
