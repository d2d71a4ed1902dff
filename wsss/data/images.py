"""Photographs as RGB arrays, upright, and the files of a folder that are photographs.

Shape suffixes: H rows, W columns, 3 red, green, blue.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of the files that count as images, in any case."""

ORIENTATION_TAG, WIDTH_TAG, HEIGHT_TAG = 0x0112, 0x0100, 0x0101
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that exchange rows and columns."""

HEADER_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for a file that is not the image it claims to be."""


class UnreadableImage(DataError):
    """A file that cannot be decoded as an image.

    Args:
        path: the file.
        reason: why not, from the decoder.
    """

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: unreadable image ({reason})", f"replace or delete {path}")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image as (H, W, 3) uint8 RGB, turned upright as its EXIF orientation asks.

    Grey becomes three equal channels, 16 bit keeps its upper 8, CMYK becomes RGB, and alpha is dropped:
    a transparent pixel shows the colour stored under it.

    Raises:
        UnreadableImage: the file is missing or no image. A JPEG cut short may pass, its end grey:
            ``wsss.data.check`` finds those.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)  # imread fails on some paths and on rotated TIFFs
        image_HW3 = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except (OSError, cv2.error) as error:
        raise UnreadableImage(path, error) from error
    if image_HW3 is None:
        raise UnreadableImage(path, "it is empty" if not content.size else "OpenCV cannot decode it")
    return np.asarray(cv2.cvtColor(image_HW3, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of the array that ``read_image`` gives, from the header alone.

    Raises:
        UnreadableImage: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            for key in ("xmp", "XML:com.adobe.xmp"):  # Pillow obeys an orientation there, OpenCV does not
                image.info.pop(key, None)
            exif = image.getexif()
            if image.format == "TIFF":  # whose size Pillow has turned already, in some versions
                width, height = exif.get(WIDTH_TAG, width), exif.get(HEIGHT_TAG, height)
    except HEADER_ERRORS as error:
        raise UnreadableImage(path, error) from error
    return (width, height) if exif.get(ORIENTATION_TAG) in ON_ITS_SIDE else (height, width)


def list_images(folder: Path, skip: Collection[str] = ()) -> dict[str, str]:
    """Every image below a folder, from its directory listings alone.

    Args:
        folder: where to look; links to other folders are followed.
        skip: names of folders directly in it that are left out. Hidden files and folders always are.

    Returns:
        Path below the folder by name, which is that path without its suffix; sorted, "/"-separated.

    Raises:
        DataError: two files share a name.
    """
    found: dict[str, str] = {}
    visited = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(real)
        below = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        folders[:] = sorted(name for name in folders if name[0] != "." and (below or name not in skip))
        for file in files:
            name, suffix = split_suffix(file)
            if not suffix or file.startswith("."):
                continue
            if below + name in found:
                raise same_name(folder, *sorted((found[below + name], below + file)))
            found[below + name] = below + file
    return dict(sorted(found.items()))


def split_suffix(file: str) -> tuple[str, str]:
    """Name and suffix; the suffix is empty unless it is one of ``IMAGE_SUFFIXES``."""
    name, suffix = os.path.splitext(file)  # noqa: PTH122 (pathlib is ten times slower here)
    return (name, suffix) if suffix.lower() in IMAGE_SUFFIXES else (file, "")


def same_name(folder: Path, first: str, second: str) -> DataError:
    """Two images whose outputs would overwrite each other."""
    return DataError(
        f"{folder}: {first} and {second} differ only in their suffix, and outputs are named without it",
        f"rename or move one of them (masks belong in a folder called masks): {folder / second}",
    )
