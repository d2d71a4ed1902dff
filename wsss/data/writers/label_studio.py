"""Write Label Studio tasks with brushes or polygons, and the labelling config that fits them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from wsss.data.outlines import parts
from wsss.data.writers.writer import Export, Picture, Writer, colour
from wsss.files import write_whole

SIZES = (3, 4, 8, 16)
"""Bits of the four kinds of lengths in a brush."""


def write_label_studio(out: Path, export: Export) -> None:
    """Fill a folder with tasks.json, config.xml and the images."""
    tasks, holes = [], 0
    for picture, label_HW in export.labels():
        export.place(picture, out / "images" / picture.file)
        results: list[dict[str, Any]] = []
        if label_HW is not None and export.polygons:
            results, lost = _polygons(picture, label_HW, export.classes)
            holes += lost
        elif label_HW is not None:
            results = _brushes(picture, label_HW, export.classes)
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


def _result(picture: Picture, number: int, kind: str, size: tuple[int, ...], value: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{picture.name}-{number}",
        "type": kind,
        "from_name": "mask",
        "to_name": "image",
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": value,
    }


def _score(picture: Picture, index: int) -> dict[str, float]:
    """The certainty of a class as Label Studio names it, where it is known."""
    return {"score": picture.certainty[index]} if index in picture.certainty else {}


def _brushes(picture: Picture, label_HW: NDArray[np.uint8], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One brush for each class."""
    found = []
    for k, name in enumerate(classes, start=1):
        mask_HW = label_HW == k
        if mask_HW.any():
            value = {"format": "rle", "rle": [*brush(mask_HW)], "brushlabels": [name]}
            found.append(_result(picture, k, "brushlabels", label_HW.shape, value) | _score(picture, k))
    return found


def _polygons(
    picture: Picture, label_HW: NDArray[np.uint8], classes: tuple[str, ...]
) -> tuple[list[dict[str, Any]], int]:
    """One polygon for each part, in percent of the image, and how many holes are lost."""
    height, width = label_HW.shape
    found, lost = [], 0
    for number, part in enumerate(parts(label_HW, len(classes)), start=1):
        outer, holes = part.rings()
        lost += len(holes)
        points = [[100 * x / width, 100 * y / height] for x, y in outer]
        value = {"points": points, "closed": True, "polygonlabels": [classes[part.class_index - 1]]}
        result = _result(picture, number, "polygonlabels", label_HW.shape, value)
        found.append(result | _score(picture, part.class_index))
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
