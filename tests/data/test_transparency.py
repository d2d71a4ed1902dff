"""Transparent pixels are found in every place where a format keeps them, and only where a pixel has one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsss.data.facts import examine_image

COLOURS = np.array([[[9, 9, 9], [200, 30, 60]], [[10, 220, 90], [10, 20, 30]]], np.uint8).repeat(10, 0).repeat(10, 1)
PHOTO = Image.fromarray(COLOURS)
GREY = Image.fromarray(COLOURS[..., 0])
PALETTE = PHOTO.quantize(4)
OPAQUE = np.full(COLOURS.shape[:2], 255, np.uint8)
CLEAR = OPAQUE.copy()
CLEAR[3, 3] = 254


def with_alpha(alpha: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], mode: str = "RGB") -> Image.Image:
    image = PHOTO.convert(mode)
    image.putalpha(Image.fromarray(alpha))
    return image


def content(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def deep(colour: tuple[int, int, int]) -> bytes:
    """A PNG of 16 bits a sample with one transparent colour."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    samples = COLOURS.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">HHH", *colour))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


USED, UNUSED = PALETTE.getpixel((0, 0)), 7
CASES = {
    "palette-table": (content(PALETTE, transparency=bytes([255, 255, 255, 128])), True),
    "palette-table-opaque": (content(PALETTE, transparency=bytes([255] * 4)), False),
    "palette-index": (content(PALETTE, transparency=USED), True),
    "palette-index-unused": (content(PHOTO.quantize(16), transparency=15), 15 in set(PHOTO.quantize(16).tobytes())),
    "palette-alpha-webp": (content(with_alpha(CLEAR), "WEBP", lossless=True), True),
    "colour": (content(PHOTO, transparency=(200, 30, 60)), True),
    "colour-unused": (content(PHOTO, transparency=(1, 2, 3)), False),
    "colours-of-two-pixels": (content(PHOTO, transparency=(200, 220, 30)), False),
    "grey": (content(GREY, transparency=200), True),
    "grey-unused": (content(GREY, transparency=7), False),
    "black": (content(PHOTO.convert("1"), transparency=0), True),
    "white": (content(Image.fromarray(OPAQUE).convert("1"), transparency=0), False),
    "alpha": (content(with_alpha(CLEAR)), True),
    "alpha-opaque": (content(with_alpha(OPAQUE)), False),
    "grey-alpha": (content(with_alpha(CLEAR, "L")), True),
    "tiff-alpha": (content(with_alpha(CLEAR), "TIFF"), True),
    "tiff-grey-alpha": (content(with_alpha(CLEAR, "L"), "TIFF"), True),
    "deep-colour": (deep((200 * 257, 30 * 257, 60 * 257)), True),
    "deep-colour-unused": (deep((1, 2, 3)), False),
    "plain": (content(PHOTO), False),
    "jpeg": (content(PHOTO, "JPEG"), False),
}


@pytest.mark.parametrize(("file", "transparent"), CASES.values(), ids=CASES.keys())
def test_transparent_pixels_are_found(file: bytes, transparent: bool) -> None:
    assert examine_image(file, Path("photo")).transparent == transparent


def test_a_comment_called_transparency_is_none() -> None:
    comment = PngInfo()
    comment.add_text("transparency", "none at all")
    assert not examine_image(content(PHOTO, pnginfo=comment), Path("photo")).transparent
