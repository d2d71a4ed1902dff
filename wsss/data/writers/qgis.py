"""Write masks for QGIS: palette PNGs, each with its colour file and the world file of its image."""

from __future__ import annotations

from pathlib import Path

from wsss.data.masks import IGNORE_INDEX, write_mask
from wsss.data.walking import is_file
from wsss.data.writers.writer import Export, Writer, colour, plain_names
from wsss.files import write_whole

WORLD_FILES = {".jpg": ".jgw", ".jpeg": ".jgw", ".png": ".pgw", ".tif": ".tfw", ".tiff": ".tfw", ".bmp": ".bpw"}
"""Endings of the file that places an image on the map, by that of the image."""


def write_qgis(out: Path, export: Export) -> None:
    """Fill a folder with ``NAME.png``, ``NAME.txt`` and, where the image has one, ``NAME.pgw``.

    Raises:
        UsageError: a class name has a comma.
    """
    plain_names(export, ",\n", "QGIS's colour file")
    colours = colour_file(export.classes)
    for picture in export.each(export.pictures):
        label_HW = None if picture.label is None else picture.label()
        if label_HW is None:
            export.without_label += 1
            continue
        write_mask(out / f"{picture.name}.png", label_HW)
        write_whole(out / f"{picture.name}.txt", colours)
        world = (
            None
            if picture.image is None
            else picture.image.with_suffix(WORLD_FILES.get(picture.image.suffix.lower(), ".wld"))
        )
        if world is not None and is_file(world):
            write_whole(out / f"{picture.name}.pgw", world.read_bytes())


def colour_file(classes: tuple[str, ...]) -> str:
    """The colours of the values; the background and ignored pixels are transparent."""
    lines = ["# QGIS Generated Color Map Export File", "INTERPOLATION:EXACT", "0,0,0,0,0,background"]
    for k, name in enumerate(classes, start=1):
        lines.append(f"{k},{','.join(map(str, colour(k)))},255,{name}")
    lines.append(f"{IGNORE_INDEX},{','.join(map(str, colour(IGNORE_INDEX)))},0,ignore")
    return "\n".join(lines) + "\n"


QGIS = Writer(name="qgis", writes="NAME.png, its colour file NAME.txt and the world file NAME.pgw", write=write_qgis)
