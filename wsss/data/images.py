"""Photographs as RGB arrays, upright.

Shape suffixes: H rows, W columns, 3 red, green, blue.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from wsss.data.findings import BadData, Finding, Place
from wsss.data.parts import Part

BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
}
"""First bytes of image files, and the ending that these have."""
EXTRA = {
    **({"HEIF": (".heic", ".heif", ".hif")} if find_spec("pillow_heif") else {}),
    **({"AVIF": (".avif",)} if find_spec("PIL._avif") else {}),
}
"""Formats that Pillow reads here and not everywhere, and their endings; OpenCV is not asked for them."""
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    *(end for ends in EXTRA.values() for end in ends),
)
"""Endings of the files that count as images, in upper or lower case."""
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", *EXTRA)
"""Formats that are read, whatever the ending; Pillow's names. OpenCV reads other formats in some builds only."""
PNG = b"\x89PNG\r\n\x1a\n"
"""First bytes of a PNG file."""
TIFF = (b"II*\0", b"MM\0*")
"""First bytes of TIFF files."""
HEIF_KINDS = {
    b"heic": "HEIF",
    b"heix": "HEIF",
    b"heim": "HEIF",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"avif": "AVIF",
    b"avis": "AVIF",
}
"""What stands from the ninth byte on, after "ftyp", in files of these two formats."""
SURE_PIXELS = 178_956_970
"""Images of more pixels, Pillow's own limit, are read only where the file has a byte for each ``PIXELS_A_BYTE``: a file
that is made to fill the memory is small, and no photograph is as small as that."""
PIXELS_A_BYTE = 200
MAX_PIXELS = 2**30
"""Larger images are refused; OpenCV decodes no larger ones. Such an image takes 3 GiB."""
MAX_BYTES = 2**31
"""Larger files are refused unread. A compressed picture of ``MAX_PIXELS`` is smaller; one that is not, and has more
than 700 megapixels, is larger."""

SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
"""First bytes of ``FORMATS``; those of WebP are RIFF and, from the ninth on, WEBP."""
OTHER_SIGNATURES = {
    b"GIF8": "a GIF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"PK\3\4": "a zip archive",
    b"version https://git-lfs": "a pointer of Git LFS: git lfs pull",
    b"<": "HTML, SVG or XML",
}
"""First bytes of other files that are often called .jpg, and what they are."""
SNIFFED = 32
"""Bytes that are read to tell the format of a file."""

ORIENTATION_TAG, WIDTH_TAG, HEIGHT_TAG = 0x0112, 0x0100, 0x0101
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that exchange rows and columns."""
ONLY_PILLOW = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")
"""Metadata in which Pillow looks for an orientation and OpenCV does not."""
Levels = tuple[int, int]
"""Values of samples that are read as black and white."""
FULL_LEVELS: Levels = (0, 2**16 - 1)
PNG_SIGNATURE = 8
"""Bytes before the first chunk of a PNG."""

COLOUR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
"""OpenCV's flag to decode to RGB, without a second copy; None in older versions, which decode to BGR only."""

MANIFEST = "manifest.json"
"""File that this program writes into a folder of label maps (``wsss.outputs.folder``)."""
MADE = ("labels", "scores", "overlays")
"""Folders beside a manifest; their files are made from photographs and are not photographs."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow would refuse twice ``SURE_PIXELS``; `opened` checks every image
if "HEIF" in EXTRA:
    import_module("pillow_heif").register_heif_opener()
for category in (UserWarning, Image.DecompressionBombWarning):  # damaged metadata; MAX_PIXELS limits sizes
    warnings.filterwarnings("ignore", category=category, module="PIL")


class UnreadableImage(BadData):
    """A file that cannot be decoded as an image.

    Args:
        path: the file.
        reason: why not.
        kind: of the fault.
    """

    def __init__(self, path: Path, reason: object, kind: str = "image-broken") -> None:
        self.reason, self.kind = str(reason), kind
        finding = Finding(kind, Place(path), f"unreadable image ({self.reason})")
        super().__init__(f"{path}: {finding.what}", f"replace or delete {path}", [finding])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read and decode an image file; see ``decode_image``.

    Raises:
        UnreadableImage: the file is missing, too large or no image.
    """
    return decode_image(read_content(path), path)


def suffix_of(content: bytes) -> str:
    """The usual ending of a file that begins with these bytes; empty where it is no image that is read."""
    if (kind := _heif_kind(content)) is not None:
        return EXTRA[kind][0] if kind in EXTRA else ""
    if content[:4] == b"RIFF":
        return ".webp" if content[8:12] == b"WEBP" else ""
    return next((suffix for start, suffix in BEGINNINGS.items() if content.startswith(start)), "")


def _heif_kind(content: bytes) -> str | None:
    return HEIF_KINDS.get(content[8:12]) if content[4:8] == b"ftyp" else None


def sniffed_suffix(path: Path) -> str:
    """The ending that fits the first bytes of a file; empty where it is no image, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block
            return ""
        with path.open("rb") as file:
            return suffix_of(file.read(SNIFFED))
    except OSError:
        return ""


def read_content(path: Path, part: Part | None = None) -> bytes:
    """The bytes of an image file, or of a member of a shard.

    Args:
        path: of the file; of a member the shard and its name there, for messages.
        part: where a member lies; None for a file of its own.

    Raises:
        UnreadableImage: it is missing, empty, no regular file, cut short, or has more than ``MAX_BYTES``.
    """
    try:
        status = (path if part is None else part.file).stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            raise UnreadableImage(path, "no regular file", "image-irregular")
        length = status.st_size if part is None else part.length
        if length > MAX_BYTES:
            raise UnreadableImage(path, f"{length} bytes; at most {MAX_BYTES} are read", "image-huge")
        content = path.read_bytes() if part is None else part.read()
    except OSError as error:
        raise explained(path, error) from error
    if not content:
        raise _empty(path)
    if part is not None and len(content) < part.length:
        raise UnreadableImage(path, f"truncated: {part.file} ends before it", "image-truncated")
    return content


def decode_image(content: bytes, where: Path, levels: Levels | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of an image as (H, W, 3) uint8 RGB, turned upright as its EXIF orientation asks.

    Grey becomes three equal channels, CMYK becomes RGB, and alpha is dropped: a transparent pixel shows the colour
    stored under it. Of 16 bits the upper 8 are kept, or those of the range ``levels``.

    Args:
        content: of the file, in one of ``FORMATS``.
        where: its path, for the message of an error.
        levels: values of 16-bit samples that become 0 and 255; None: 0 and 65535.

    Raises:
        UnreadableImage: it is no image. A JPEG that is cut short may pass, its end grey, and so may huge
            images: ``wsss.data.facts.examine_image`` finds those.
    """
    if _heif_kind(content) in EXTRA:
        with opened(where, io.BytesIO(content)) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    refuse_cut_png(content, where)
    if content[:4] in TIFF:
        with opened(where, io.BytesIO(content)) as image:
            if image.mode in ("RGBA", "LA"):  # OpenCV multiplies the colours by their alpha
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if levels is not None and levels != FULL_LEVELS:
        deep_HW3 = decode_deep(content)
        if deep_HW3 is not None:
            return levelled(deep_HW3, levels)
    encoded = np.frombuffer(content, dtype=np.uint8)
    try:
        if COLOUR_RGB is not None:
            image_HW3 = cv2.imdecode(encoded, COLOUR_RGB) if content else None
        else:  # a second copy of the image
            bgr_HW3 = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if content else None
            image_HW3 = None if bgr_HW3 is None else cv2.cvtColor(bgr_HW3, cv2.COLOR_BGR2RGB)
    except cv2.error as error:
        raise explained(where, error, io.BytesIO(content)) from error
    if not content:
        raise _empty(where)
    if image_HW3 is None:
        raise UnreadableImage(where, "OpenCV cannot decode it", "image-undecodable")
    return np.asarray(image_HW3, dtype=np.uint8)


def refuse_cut_png(content: bytes, where: Path) -> None:
    """Refuse a PNG one of whose chunks goes beyond the end of its bytes; other images pass.

    OpenCV allocates what the damaged size of a chunk says, up to 4 GiB, before it finds that the bytes are missing.

    Raises:
        UnreadableImage: it is such a PNG.
    """
    at = len(PNG)
    while content.startswith(PNG) and at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if at + 12 + size > len(content):
            raise UnreadableImage(where, "truncated: a chunk of this PNG goes beyond its end", "image-truncated")
        if content[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + size


def decode_deep(content: bytes) -> NDArray[np.uint16] | None:
    """An image of 16 bits a sample as (H, W, 3) uint16 RGB, upright; None for others and what cannot be decoded."""
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        bgr_HW3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags) if content else None
    except cv2.error:
        return None
    if bgr_HW3 is None or bgr_HW3.dtype != np.uint16:
        return None
    return np.asarray(cv2.cvtColor(bgr_HW3, cv2.COLOR_BGR2RGB), dtype=np.uint16)


def levelled(deep: NDArray[np.uint16], levels: Levels) -> NDArray[np.uint8]:
    """Samples of 16 bits as 8: ``levels`` are divided into 256 equal parts, what lies outside is 0 or 255.

    Of all 16 bits, or of a lower number of them, these are the upper 8.
    """
    low, high = levels
    table_V = (np.arange(2**16, dtype=np.int64) - low) * 256 // (high - low + 1)
    return table_V.clip(0, 255).astype(np.uint8)[deep]


def image_size(path: Path, part: Part | None = None) -> tuple[int, int]:
    """(H, W) of the array that ``read_image`` gives; decodes no pixel. The arguments are those of ``read_content``.

    Raises:
        UnreadableImage: the file is missing or no image, or has more than ``MAX_PIXELS``.
    """
    with opened(path, path if part is None else io.BytesIO(read_content(path, part))) as image:
        return upright_size(image)


@contextmanager
def opened(path: Path, source: Path | BinaryIO) -> Iterator[Image.Image]:
    """An image of which only the header is read, from its path or its content.

    Raises:
        UnreadableImage: it is none of ``FORMATS`` or too large, or what is read in the context is damaged.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > SURE_PIXELS and pixels > min(MAX_PIXELS, PIXELS_A_BYTE * _length(source)):
                raise Image.DecompressionBombError(f"Image size ({pixels} pixels)")
            yield image
    except Exception as error:  # Pillow's decoders raise many types of errors on damaged files
        raise explained(path, error, source) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) of an opened image, turned as its EXIF orientation asks; decodes no pixel."""
    exif = _exif(image)
    width, height = image.size
    if image.format == "TIFF":  # some versions of Pillow give the size of a TIFF after turning it
        width, height = exif.get(WIDTH_TAG, width), exif.get(HEIGHT_TAG, height)
    return (width, height) if exif.get(ORIENTATION_TAG) in ON_ITS_SIDE else (height, width)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 (upright) to 8; 1 where it has none."""
    turn = _exif(image).get(ORIENTATION_TAG, 1)
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _exif(image: Image.Image) -> Image.Exif:
    """The EXIF data that OpenCV obeys as well."""
    for key in ONLY_PILLOW:
        image.info.pop(key, None)
    if image.format != "PNG":
        return image.getexif()
    if "exif" not in image.info:
        content = _png_exif(image)
        if content is not None:
            image.info["exif"] = content
    return Image.Image.getexif(image)  # PngImageFile.getexif decodes the whole image


def _png_exif(image: Image.Image) -> bytes | None:
    """The content of a PNG's eXIf chunk, wherever it stands; skips the other chunks."""
    file = getattr(image, "fp", None)
    if file is None:  # decoded already: Pillow has read all chunks
        return None
    position = file.tell()
    try:
        file.seek(PNG_SIGNATURE)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return bytes(file.read(length))
            file.seek(length + 4, io.SEEK_CUR)  # 4 bytes of checksum
        return None
    finally:
        file.seek(position)


def stored_mode(image: Image.Image) -> str:
    """How the first tile of an opened image stores its samples, in Pillow's raw modes: "RGB;16B" or "L;4"."""
    tiles = getattr(image, "tile", ())
    if not tiles:
        return image.mode
    how = tiles[0][3]
    return str(how if isinstance(how, str) or not how else how[0])


def explained(path: Path, error: Exception, source: Path | BinaryIO | None = None) -> UnreadableImage:
    """The error of a decoder or of the disk as an ``UnreadableImage``.

    Args:
        path: of the image, for the message.
        error: what was raised.
        source: where the bytes of the image are; None: at the path.
    """
    if isinstance(error, UnreadableImage):
        return error
    if isinstance(error, FileNotFoundError):
        lost = f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
        return UnreadableImage(path, lost, "image-missing")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        most = min(MAX_PIXELS, max(SURE_PIXELS, PIXELS_A_BYTE * _length(path if source is None else source)))
        return UnreadableImage(path, f"{error}; at most {most} are read", "image-huge")
    if isinstance(error, OSError) and error.strerror:
        return UnreadableImage(path, error.strerror)
    start, length = _first_bytes(path if source is None else source)
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path, start)
    reason = str(error) or type(error).__name__
    if start[8:12] == b"WEBP" and length < 8 + int.from_bytes(start[4:8], "little"):  # the decoder does not say it
        reason = "image file is truncated"
    return UnreadableImage(path, reason, "image-truncated" if "truncated" in reason.lower() else "image-broken")


def _length(source: Path | BinaryIO) -> int:
    """Bytes of a file; where it is open, its position stays."""
    if isinstance(source, Path):
        return source.stat().st_size
    position = source.tell()
    length = source.seek(0, io.SEEK_END)
    source.seek(position)
    return length


def _first_bytes(source: Path | BinaryIO) -> tuple[bytes, int]:
    """The first ``SNIFFED`` bytes of an image, and how many bytes it has."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _first_bytes(file)
    length = source.seek(0, io.SEEK_END)
    source.seek(0)
    return source.read(SNIFFED), length


def _unidentified(path: Path, start: bytes) -> UnreadableImage:
    """The error for a file that is no image of ``FORMATS``: says what its first bytes tell."""
    if not start:
        return _empty(path)
    own = next((name for signature, name in SIGNATURES.items() if start.startswith(signature)), None)
    if own is not None or start[8:12] == b"WEBP":
        bands = ", or it holds bands: --bands R,G,B" if own == "TIFF" else ""
        return UnreadableImage(path, f"the header of this {own or 'WebP'} is damaged or cut short{bands}")
    guess = next((name for signature, name in OTHER_SIGNATURES.items() if start.startswith(signature)), None)
    if start[4:8] == b"ftyp":
        guess = f"{start[8:12].decode('ascii', 'replace').strip()}, a kind of HEIF (pip install 'wsss[heif]' reads it)"
    return UnreadableImage(path, f"neither {', '.join(FORMATS)}{f', but {guess}' if guess else ''}", "image-unknown")


def _empty(path: Path) -> UnreadableImage:
    """The error for a file of no bytes."""
    return UnreadableImage(path, "it is empty", "image-empty")


def split_suffix(file: str) -> tuple[str, str]:
    """Name and suffix; the suffix is empty unless it is one of ``IMAGE_SUFFIXES``."""
    name, suffix = os.path.splitext(file)  # noqa: PTH122 (pathlib is ten times slower here)
    return (name, suffix) if suffix.lower() in IMAGE_SUFFIXES else (file, "")
