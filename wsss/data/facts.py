"""Facts of an image: what is known once it was decoded to its end.

A JPEG that is cut short decodes without an error, its end grey; ``examine_image`` finds such files before a run does.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from wsss.data.geo import band_bits
from wsss.data.images import (
    EXTRA,
    UnreadableImage,
    decode_deep,
    decode_image,
    opened,
    orientation,
    refuse_cut_png,
    stored_mode,
    upright_size,
)
from wsss.data.transparency import is_transparent

DRAFT = 8
"""JPEGs are decoded at 1/8 of their size: every byte is read, few pixels are computed."""
DIGEST_BYTES = 16
"""Length of a digest."""
PILLOW_BLOCK = 2**26
"""Bytes of the blocks in which Pillow holds pixels, at most. Freed blocks of its 16 MiB stay in the C library's heap of
each thread; larger ones go back to the system, so that six PNGs of 48 megapixels scan in 360 MiB and not in 920."""

_pillow: Any = getattr(Image, "core", None)
if hasattr(_pillow, "set_block_size"):
    _pillow.set_block_size(PILLOW_BLOCK)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """What is known of an image that decodes to its end.

    Attributes:
        size: (H, W) in pixels, upright.
        turn: EXIF orientation, 1 (upright) to 8.
        format: one of ``wsss.data.images.FORMATS``, whatever the suffix says.
        mode: Pillow's, "RGB" or "CMYK" for example.
        bits: of a sample, 8; of 16-bit images those that are used, 9 to 16.
        frames: more than one in an animation or a TIFF of several pages.
        transparent: whether some pixel is not opaque.
        digest: see ``image_digest``.
    """

    size: tuple[int, int]
    turn: int
    format: str
    mode: str
    bits: int
    frames: int
    transparent: bool
    digest: str


def image_digest(content: bytes) -> str:
    """The digest of an image: BLAKE2b of its bytes, 16 bytes as 32 hexadecimal digits. Copies share it."""
    return blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def pixel_count(content: bytes, where: Path) -> int:
    """Pixels of an image by its header, at least 1; 1 where there is no header that can be read."""
    try:
        with opened(where, io.BytesIO(content)) as image:
            return max(1, image.width * image.height)
    except UnreadableImage:
        return 1


def examine_image(content: bytes, where: Path) -> ImageFacts:
    """Decode an image to its end, with Pillow, which notices one that is cut short, and with OpenCV as a run does.

    Args:
        content: the bytes of the file.
        where: its path, for the message of an error.

    Raises:
        UnreadableImage: one of the two fails, they disagree about the size, or it is too large.
    """
    facts = _examine_with_pillow(content, where)
    _compare_with_opencv(where, content, facts)
    deep_HW3 = decode_deep(content) if facts.bits > 8 else None
    if deep_HW3 is None:
        return facts
    return replace(facts, bits=max(9, int(deep_HW3.max(initial=0)).bit_length()))


def examine_bands(content: bytes, where: Path, bands: tuple[int, ...]) -> ImageFacts:
    """The facts of some bands of a GeoTIFF, which rasterio alone reads.

    Raises:
        UnreadableImage, MachineError: see ``wsss.data.geo.read_bands``.
    """
    size, bits = band_bits(content, where, bands)
    return ImageFacts(
        size=size,
        turn=1,
        format="TIFF",
        mode="bands",
        bits=bits,
        frames=1,
        transparent=False,
        digest=image_digest(content),
    )


def _examine_with_pillow(content: bytes, where: Path) -> ImageFacts:
    with opened(where, io.BytesIO(content)) as image:
        mode, stored = image.mode, stored_mode(image)
        size, turn = upright_size(image), orientation(image)
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.draft("L", (max(1, image.width // DRAFT), max(1, image.height // DRAFT)))
        image.load()
        return ImageFacts(
            size=size,
            turn=turn,
            format="JPEG" if image.format == "MPO" else str(image.format),  # phones add a second image to a photo
            mode=mode,
            bits=16 if ";16" in stored else 8,
            frames=frames,
            transparent=is_transparent(image, stored),
            digest=image_digest(content),
        )


def _compare_with_opencv(path: Path, content: bytes, facts: ImageFacts) -> None:
    """Refuse what OpenCV does not decode, or decodes to another size than the header says: batches rely on the size."""
    if facts.format in EXTRA:
        if decode_image(content, path).shape[:2] != facts.size:
            raise UnreadableImage(path, "its header and its pixels disagree about its size", "image-turned")
        return
    refuse_cut_png(content, path)
    step = DRAFT if facts.format == "JPEG" and _shows_its_side(facts.size) else 1
    flags = cv2.IMREAD_COLOR if step == 1 else cv2.IMREAD_REDUCED_COLOR_8
    try:
        image_hw3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:
        raise UnreadableImage(path, " ".join(str(error).split()), "image-undecodable") from error
    if image_hw3 is None:
        what = f"OpenCV cannot decode this {facts.format} of mode {facts.mode}"
        what += "; --bands R,G,B may" if facts.format == "TIFF" else ""
        raise UnreadableImage(path, what, "image-undecodable")
    if image_hw3.shape[:2] != _reduced(facts.size, step):
        raise UnreadableImage(path, "its EXIF is damaged: decoders disagree about its size", "image-turned")


def _reduced(size: tuple[int, int], step: int) -> tuple[int, int]:
    """(H, W) of a JPEG decoded at one ``step``-th of each side."""
    return -(-size[0] // step), -(-size[1] // step)


def _shows_its_side(size: tuple[int, int]) -> bool:
    """Whether the reduced size of a JPEG still tells upright from lying on its side."""
    height, width = _reduced(size, DRAFT)
    return height != width or size[0] == size[1]
