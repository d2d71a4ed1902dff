"""Photographs as RGB arrays, upright, and the files of a folder that are photographs.

Shape suffixes: H rows, W columns, 3 red, green, blue.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsss.data.findings import BadData, Finding, Note, Place, refuse

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of the files that count as images, in any case."""
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""What these files may hold, whatever their ending; Pillow's names. OpenCV reads others in some builds alone."""
MAX_PIXELS = 178_956_970
"""Larger images are refused: most are made to fill the memory. It is where Pillow stops, too."""

SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
"""First bytes of ``FORMATS``; those of WebP are RIFF and, from the ninth on, WEBP."""
STRANGERS = {
    b"GIF8": "a GIF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"PK\3\4": "a zip archive",
    b"version https://git-lfs": "a pointer of Git LFS: git lfs pull",
    b"<": "HTML, SVG or XML",
}
"""First bytes of what is often called .jpg and is no photograph we read."""
SNIFFED = 32

ORIENTATION_TAG, WIDTH_TAG, HEIGHT_TAG = 0x0112, 0x0100, 0x0101
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that exchange rows and columns."""

MANIFEST = "manifest.json"
"""What this program leaves in a folder of label maps that it makes (``wsss.outputs.folder``)."""
MADE = ("labels", "scores", "overlays")
"""Folders beside a manifest; what lies there was made of photographs and is none."""

for category in (UserWarning, Image.DecompressionBombWarning):  # damaged metadata; MAX_PIXELS judges sizes
    warnings.filterwarnings("ignore", category=category, module="PIL")


class UnreadableImage(BadData):
    """A file that cannot be decoded as an image.

    Args:
        path: the file.
        reason: why not.
        kind: of the fault.
    """

    def __init__(self, path: Path, reason: object, kind: str = "image-broken") -> None:
        self.reason = str(reason)
        finding = Finding(kind, Place(path), f"unreadable image ({self.reason})")
        super().__init__(f"{path}: {finding.what}", f"replace or delete {path}", [finding])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image as (H, W, 3) uint8 RGB, turned upright as its EXIF orientation asks.

    Grey becomes three equal channels, 16 bit keeps its upper 8, CMYK becomes RGB, and alpha is dropped:
    a transparent pixel shows the colour stored under it.

    Raises:
        UnreadableImage: the file is missing or no image. A JPEG cut short may pass, its end grey, and so may huge
            images: ``wsss.data.readable`` finds those.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)  # imread fails on some paths and on rotated TIFFs
        image_HW3 = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except (OSError, cv2.error) as error:
        raise explained(path, error) from error
    if not content.size:
        raise empty(path)
    if image_HW3 is None:
        raise UnreadableImage(path, "OpenCV cannot decode it", "image-undecodable")
    return np.asarray(cv2.cvtColor(image_HW3, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of the array that ``read_image`` gives, from the header alone.

    Raises:
        UnreadableImage: the file is missing or no image, or has more than ``MAX_PIXELS``.
    """
    with opened(path, path) as image:
        return upright_size(image)


@contextmanager
def opened(path: Path, source: Path | BinaryIO) -> Iterator[Image.Image]:
    """An image of which the header alone is read, from its path or its content.

    Raises:
        UnreadableImage: it is none of ``FORMATS`` or too large, or what is read in the context is damaged.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"Image size ({image.width * image.height} pixels)")
            yield image
    except Exception as error:  # Pillow's readers trip over damaged files in every way there is
        raise explained(path, error) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) of an opened image, turned as its EXIF orientation asks."""
    width, height = image.size
    for key in ("xmp", "XML:com.adobe.xmp"):  # Pillow obeys an orientation there, OpenCV does not
        image.info.pop(key, None)
    exif = image.getexif()
    if image.format == "TIFF":  # whose size Pillow has turned already, in some versions
        width, height = exif.get(WIDTH_TAG, width), exif.get(HEIGHT_TAG, height)
    return (width, height) if exif.get(ORIENTATION_TAG) in ON_ITS_SIDE else (height, width)


def stored_mode(image: Image.Image) -> str:
    """How an opened image stores its samples, in Pillow's raw modes: "RGB;16B" or "L;4"; the first tile tells."""
    tiles = getattr(image, "tile", ())
    if not tiles:
        return image.mode
    how = tiles[0][3]
    return str(how if isinstance(how, str) or not how else how[0])


def explained(path: Path, error: Exception) -> UnreadableImage:
    """What the decoder's error means."""
    if isinstance(error, UnreadableImage):
        return error
    if isinstance(error, FileNotFoundError):
        return UnreadableImage(path, "no such file", "image-missing")
    if isinstance(error, UnidentifiedImageError):
        return unidentified(path)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return UnreadableImage(path, f"{error}; at most {MAX_PIXELS} are read", "image-huge")
    if isinstance(error, OSError) and error.strerror:
        return UnreadableImage(path, error.strerror)
    reason = str(error) or type(error).__name__
    if webp_is_cut(path):  # of which the decoder says nothing useful
        reason = "image file is truncated"
    return UnreadableImage(path, reason, "image-truncated" if "truncated" in reason.lower() else "image-broken")


def webp_is_cut(path: Path) -> bool:
    """Whether a WebP has fewer bytes than its first ones promise."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[8:] == b"WEBP" and path.stat().st_size < 8 + int.from_bytes(start[4:8], "little")


def unidentified(path: Path) -> UnreadableImage:
    """What a file is instead of an image, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    if not start:
        return empty(path)
    own = next((name for signature, name in SIGNATURES.items() if start.startswith(signature)), None)
    if own is not None or start[8:12] == b"WEBP":
        return UnreadableImage(path, f"the header of this {own or 'WebP'} is damaged or cut short")
    guess = next((name for signature, name in STRANGERS.items() if start.startswith(signature)), None)
    if start[4:8] == b"ftyp":
        guess = f"{start[8:12].decode('ascii', 'replace').strip()}, a kind of HEIF"
    return UnreadableImage(path, f"neither {', '.join(FORMATS)}{f', but {guess}' if guess else ''}", "image-unknown")


def empty(path: Path) -> UnreadableImage:
    """A file of no bytes."""
    return UnreadableImage(path, "it is empty", "image-empty")


def list_images(folder: Path, skip: Collection[str] = (), *, note: Note = refuse) -> dict[str, str]:
    """Every image below a folder, from its directory listings alone, without the label maps that this program made.

    Args:
        folder: where to look; links to other folders are followed.
        skip: names of folders directly in it that are left out. Hidden files and folders always are.
        note: told of two files that share a name; the first of them counts.

    Returns:
        Path below the folder by name, which is that path without its suffix; sorted, "/"-separated.

    Raises:
        DataError: two files share a name, unless ``note`` goes on.
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
        left_out = {*(() if below else skip), *(MADE if MANIFEST in files and is_ours(Path(place) / MANIFEST) else ())}
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in left_out)
        for file in files:
            name, suffix = split_suffix(file)
            if not suffix or file.startswith("."):
                continue
            if below + name in found:
                note(same_name(folder, *sorted((found[below + name], below + file))))
                continue
            found[below + name] = below + file
    return dict(sorted(found.items()))


def is_ours(manifest: Path) -> bool:
    """Whether this program wrote a manifest; other programs have files of that name."""
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "wsss" in content


def split_suffix(file: str) -> tuple[str, str]:
    """Name and suffix; the suffix is empty unless it is one of ``IMAGE_SUFFIXES``."""
    name, suffix = os.path.splitext(file)  # noqa: PTH122 (pathlib is ten times slower here)
    return (name, suffix) if suffix.lower() in IMAGE_SUFFIXES else (file, "")


def same_name(folder: Path, first: str, second: str) -> BadData:
    """Two images whose outputs would overwrite each other."""
    what = f"{first} and {second} differ only in their suffix, and outputs are named without it"
    fix = f"rename or move one of them (masks belong in a folder called masks): {folder / second}"
    return BadData(f"{folder}: {what}", fix, [Finding("name-twice", Place(folder / second), what)])
