"""Write Label Studio tasks with brushes or polygons, and the labelling config that fits them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from wsss.data.outlines import parts
from wsss.data.writers.writer import Export, Writer, colour
from wsss.files import write_whole

SIZES = (3, 4, 8, 16)
"""Bits of the four kinds of lengths in a brush."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where regions belong.

    Attributes:
        name: of the image; ids of regions begin with it.
        certainty: of classes, in [0, 1] by class index; those that are unknown are left out.
        from_name, to_name: names of the tags of labels and of the image in the labelling config.
    """

    name: str
    certainty: Mapping[int, float] = field(default_factory=dict)
    from_name: str = "mask"
    to_name: str = "image"


def write_label_studio(out: Path, export: Export) -> None:
    """Fill a folder with tasks.json, config.xml and the images."""
    tasks, holes = [], 0
    for picture, label_HW in export.labels():
        export.place(picture, out / "images" / picture.file)
        results: list[dict[str, Any]] = []
        if label_HW is not None:
            place = Place(name=picture.name, certainty=picture.certainty)
            results, lost = regions(place, label_HW, export.classes, polygons=export.polygons)
            holes += lost
        score = 1.0 if picture.score is None else round(picture.score, 4)
        made = (
            {"result": results} if export.annotations else {"model_version": "wsss", "score": score, "result": results}
        )
        image = export.url_prefix + quote(f"images/{picture.file}")
        tasks.append({"data": {"image": image}, "annotations" if export.annotations else "predictions": [made]})
    write_whole(out / "tasks.json", json.dumps(tasks, ensure_ascii=False))
    write_whole(out / "config.xml", _config(export))
    if holes:
        export.remarks.append(f"{holes} holes are filled: Label Studio's polygons have none (brushes have)")


def _config(export: Export) -> str:
    tag = "PolygonLabels" if export.polygons else "BrushLabels"
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour(k)).hex()}"/>\n'
        for k, name in enumerate(export.classes, start=1)
    )
    inner = f'  <{tag} name="mask" toName="image">\n{labels}  </{tag}>\n'
    return f'<View>\n  <Image name="image" value="$image"/>\n{inner}</View>\n'


def regions(
    place: Place, label_HW: NDArray[np.uint8], classes: Sequence[str], *, polygons: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """The regions of a label map: one brush for each class, or one polygon for each part.

    Args:
        place: the image, and the tags that the regions belong to.
        label_HW: class indices; those beyond the classes have no region.
        classes: class names; class index k is ``classes[k - 1]``.
        polygons: outlines in percent of the sides; they have no holes.

    Returns:
        The regions, and how many holes are filled.
    """
    return _polygons(place, label_HW, classes) if polygons else (_brushes(place, label_HW, classes), 0)


def _region(place: Place, number: int, index: int, kind: str, size: tuple[int, ...], shape: Any) -> dict[str, Any]:
    """One region; with the certainty of its class as Label Studio names it, where it is known."""
    return {
        "id": f"{place.name}-{number}",
        "type": kind,
        "from_name": place.from_name,
        "to_name": place.to_name,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": shape,
    } | ({"score": place.certainty[index]} if index in place.certainty else {})


def _brushes(place: Place, label_HW: NDArray[np.uint8], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One brush for each class."""
    found = []
    for k, name in enumerate(classes, start=1):
        mask_HW = label_HW == k
        if mask_HW.any():
            value = {"format": "rle", "rle": [*brush(mask_HW)], "brushlabels": [name]}
            found.append(_region(place, k, k, "brushlabels", label_HW.shape, value))
    return found


def _polygons(place: Place, label_HW: NDArray[np.uint8], classes: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """One polygon for each part, in percent of the image, and how many holes are lost."""
    height, width = label_HW.shape
    found, lost = [], 0
    for number, part in enumerate(parts(label_HW, len(classes)), start=1):
        outer, holes = part.rings()
        lost += len(holes)
        points = [[100 * x / width, 100 * y / height] for x, y in outer]
        value = {"points": points, "closed": True, "polygonlabels": [classes[part.class_index - 1]]}
        found.append(_region(place, number, part.class_index, "polygonlabels", label_HW.shape, value))
    return found, lost


def brush(mask_HW: NDArray[np.bool_]) -> bytes:
    """A mask as Label Studio's bit stream: the values of four channels, 0 or 255, row by row, in runs."""
    flat_N = mask_HW.reshape(-1)
    bounds = [0, *(np.flatnonzero(flat_N[1:] != flat_N[:-1]) + 1).tolist(), flat_N.size]
    bits = [f"{4 * flat_N.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for begin, end in pairwise(bounds):
        value = "1" * 8 if flat_N[begin] else "0" * 8
        bits += [_run(length, value) for length in _lengths(4 * (end - begin))]
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0")).tobytes()


def _lengths(total: int) -> list[int]:
    """A length in parts that the longest kind holds."""
    most = 1 << SIZES[-1]
    return [most] * (total // most) + ([total % most] if total % most else [])


def _run(length: int, value: str) -> str:
    """The bits of one run: that it is one, which kind of length, the length less one, the value."""
    kind = next(kind for kind, size in enumerate(SIZES) if length <= 1 << size)
    return f"1{kind:02b}{length - 1:0{SIZES[kind]}b}{value}"


LABEL_STUDIO = Writer(
    name="label-studio",
    writes="tasks.json with brushes (--polygons: outlines), config.xml, and images/",
    write=write_label_studio,
)
