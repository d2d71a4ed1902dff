"""Whether an image has pixels that are not opaque, wherever its format keeps that.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

ROWS_AT_ONCE = 256
"""Rows that are compared with the transparent colour at one time, which bounds the memory."""
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
"""Modes of Pillow with a channel of opacity."""


def is_transparent(image: Image.Image, stored: str) -> bool:
    """Whether some pixel of a decoded image is not opaque.

    Opacity is a channel of its own, a table of the palette, or one transparent colour (both are the tRNS of a PNG).

    Args:
        image: decoded.
        stored: how its file stores samples, ``wsss.data.images.stored_mode`` before it was decoded.
    """
    if image.mode in ALPHA_MODES and _lowest(image.getchannel("A")) < 255:
        return True
    transparency = image.info.get("transparency")
    if transparency is None or isinstance(transparency, str):  # a comment may have this name, too
        return False
    if image.mode in ("P", "PA"):
        return _uses_clear_entry(image, transparency)
    return _has_colour(image, transparency, deep=";16" in stored and image.mode == "RGB")


def _lowest(channel: Image.Image) -> float:
    """The lowest value of one channel."""
    low = channel.getextrema()[0]
    return low if isinstance(low, int | float) else low[0]


def _uses_clear_entry(image: Image.Image, transparency: bytes | int) -> bool:
    """Whether a pixel has an index of the palette whose opacity is below 255."""
    if isinstance(transparency, bytes):
        clear = [index for index, opacity in enumerate(transparency) if opacity < 255]
    else:
        clear = [transparency]
    counts = (image if image.mode == "P" else image.getchannel("P")).histogram()
    return any(counts[index] for index in clear if 0 <= index < len(counts))


def _has_colour(image: Image.Image, colour: bytes | int | tuple[int, ...], *, deep: bool) -> bool:
    """Whether a pixel of a grey or colour image has the transparent colour.

    Args:
        image: decoded.
        colour: one value for each channel.
        deep: the file has 16 bits a sample, of which the decoded image keeps the upper 8.
    """
    values = np.array(colour if isinstance(colour, tuple | bytes) else [colour]).astype(np.int64).reshape(-1)
    values_C = values >> 8 if deep else values
    if image.mode == "1":
        values_C = values_C * 255
    for top in range(0, image.height, ROWS_AT_ONCE):
        band = np.asarray(image.crop((0, top, image.width, min(top + ROWS_AT_ONCE, image.height))))
        band_HWC = band.reshape(*band.shape[:2], -1).astype(np.int64) * (255 if band.dtype == np.bool_ else 1)
        if band_HWC.shape[-1] == len(values_C) and bool((band_HWC == values_C).all(axis=-1).any()):
            return True
    return False
