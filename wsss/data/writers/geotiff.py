"""Write label maps as GeoTIFF files that lie where their pictures lie; with --polygons GeoJSON too."""

from __future__ import annotations

import json
from pathlib import Path

from wsss.data.geo import georeference, polygons, require_rasterio, write_label
from wsss.data.masks import PALETTE
from wsss.data.writers.writer import Export, Writer
from wsss.errors import UsageError
from wsss.files import write_whole


def write_geotiff(out: Path, export: Export) -> None:
    """Fill a folder; pictures without coordinates are left out and counted.

    Raises:
        MachineError: rasterio is not installed.
        UsageError: no picture has coordinates.
        DataError: a picture or a label map cannot be read.
    """
    require_rasterio()
    plain = written = 0
    for picture in export.each(export.pictures):
        if picture.label is None or picture.image is None:
            continue
        place = georeference(picture.read(), picture.image)
        if place is None:
            plain += 1
            continue
        label_HW = picture.label()
        path = out / f"{picture.name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label(path, label_HW, place, PALETTE)
        if export.polygons:
            content = json.dumps(polygons(label_HW, place, export.classes))
            write_whole(out / f"{picture.name}.geojson", content)
        written += 1
    if not written:
        raise UsageError("no picture of these label maps has coordinates", "--to folder --masks")
    if plain:
        export.remarks.append(f"{plain} pictures have no coordinates and are left out")


GEOTIFF = Writer(
    name="geotiff",
    writes="NAME.tif with the coordinates of its picture, 255 as no data; --polygons: NAME.geojson too",
    write=write_geotiff,
)
