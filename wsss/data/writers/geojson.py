"""Write QuPath's GeoJSON, a file an image: a feature a class, in pixels of the full resolution."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.data.outlines import Ring, parts
from wsss.data.writers.writer import Export, Writer, colour
from wsss.files import write_whole

TILE = re.compile(r"\[(?:[a-z]+=[-0-9.]+,)*[a-z]+=[-0-9.]+\]")
"""What QuPath writes into the names of tiles: [d=2,x=0,y=512,w=512,h=512]."""


def write_geojson(out: Path, export: Export) -> None:
    """Fill a folder with ``NAME.geojson`` for each image that has a label map."""
    for picture, label_HW in export.labels():
        if label_HW is None:
            continue
        features = _features(label_HW, export.classes, tile_place(picture.name))
        content = {"type": "FeatureCollection", "features": features}
        write_whole(out / f"{picture.name}.geojson", json.dumps(content, ensure_ascii=False))


def tile_place(name: str) -> tuple[float, float, float]:
    """Left, top and downsampling of a tile, by its name; 0, 0, 1 of any other image."""
    found = TILE.search(name)
    if found is None:
        return 0.0, 0.0, 1.0
    try:
        values = {key: float(number) for key, number in (one.split("=") for one in found[0][1:-1].split(","))}
    except ValueError:
        return 0.0, 0.0, 1.0
    return values.get("x", 0.0), values.get("y", 0.0), values.get("d", 1.0)


def _features(
    label_HW: NDArray[np.uint8], classes: tuple[str, ...], place: tuple[float, float, float]
) -> list[dict[str, Any]]:
    polygons: dict[int, list[list[list[list[float]]]]] = {}
    for part in parts(label_HW, len(classes)):
        outer, holes = part.rings()
        polygons.setdefault(part.class_index, []).append([_closed(ring, place) for ring in (outer, *holes)])
    return [
        {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": coordinates},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": classes[k - 1], "color": [*colour(k)]},
            },
        }
        for k, coordinates in polygons.items()
    ]


def _closed(ring: Ring, place: tuple[float, float, float]) -> list[list[float]]:
    """The ring in pixels of the full resolution, its first corner repeated at its end."""
    left, top, scale = place
    return [[left + scale * x, top + scale * y] for x, y in (*ring, ring[0])]


GEOJSON = Writer(name="geojson", writes="NAME.geojson of each image, for QuPath", write=write_geojson)
