"""Label maps as palette PNGs: mode "P", the pixel value is the class index.

Masks are read with Pillow, which keeps the indices. OpenCV would turn them into colours.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.data.findings import BadData
from wsss.data.images import UnreadableImage, opened, read_content, stored_mode
from wsss.data.parts import Part
from wsss.files import write_whole

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
IGNORE_INDEX = 255
"""Class index of a pixel that takes no part: in losses, and in scores where the ground truth has it."""
PIXELS_AT_ONCE = 1 << 20
"""Pixels that are counted at one time, which bounds the memory of counting."""


def voc_palette() -> NDArray[np.uint8]:
    """The 256 colours of PASCAL VOC, (256, 3) RGB: the bits of the index spread over the three channels."""
    index = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


PALETTE = voc_palette()


def read_mask(path: Path, part: Part | None = None) -> NDArray[np.uint8]:
    """Read a palette (or 8-bit grey) PNG as (H, W) class indices; the arguments are those of ``read_content``.

    Raises:
        DataError: the file is no such image.
    """
    try:
        with opened(path, path if part is None else io.BytesIO(read_content(path, part))) as image:
            form = mask_form(image)
            label_HW = None if form is not None else np.array(image, dtype=np.uint8)
    except UnreadableImage as error:
        what = f"unreadable mask ({error.reason})"
        raise BadData.at("mask-unreadable", path, what, f"replace or delete {path}") from error
    if label_HW is None:
        what = f"a mask must be a palette or grey PNG of class indices, got {form}"
        raise BadData.at("mask-format", path, what, "save the class indices as an 8-bit palette PNG")
    return label_HW


def mask_colours(path: Path, indices: Iterable[int]) -> dict[int, Colour]:
    """The colours that a palette PNG gives to these indices; none of a grey one.

    Raises:
        DataError: it cannot be read.
    """
    with opened(path, path) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    colours = palette or []
    return {
        index: (colours[3 * index], colours[3 * index + 1], colours[3 * index + 2])
        for index in indices
        if 3 * index + 2 < len(colours)
    }


def mask_form(image: Image.Image) -> str | None:
    """What an opened image is if not a mask: its pixel values would be no class indices. None for a mask."""
    if image.format != "PNG":
        return f"a {image.format} file"
    if image.mode not in ("P", "L"):
        return f"mode {image.mode}"
    if image.mode == "L" and stored_mode(image) != "L":  # fewer bits, whose values Pillow stretches
        return f"grey of raw mode {stored_mode(image)}"
    return None


def unknown_indices(label_HW: NDArray[np.uint8], num_classes: int) -> list[int]:
    """Class indices of a mask above ``num_classes``, sorted; IGNORE_INDEX is none of them."""
    return [index for index in count_indices(label_HW) if num_classes < index != IGNORE_INDEX]


def write_mask(path: Path, label_HW: NDArray[np.uint8]) -> None:
    """Write class indices as a palette PNG in the VOC colours; the file appears whole or not at all."""
    write_whole(path, encode_mask(label_HW))


def encode_mask(label_HW: NDArray[np.uint8]) -> bytes:
    """The content of a palette PNG of class indices in the VOC colours."""
    image = Image.fromarray(label_HW)  # mode "L"; putpalette makes it "P" and leaves the indices as they are
    image.putpalette(PALETTE.tobytes())
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", optimize=False)
    return encoded.getvalue()


def count_indices(label_HW: NDArray[np.uint8]) -> dict[int, int]:
    """Number of pixels of each class index that a label map holds, by index in ascending order."""
    flat, counts = label_HW.reshape(-1), np.zeros(256, dtype=np.int64)
    for start in range(0, flat.size, PIXELS_AT_ONCE):  # bincount makes 8 bytes of each pixel
        counts += np.bincount(flat[start : start + PIXELS_AT_ONCE], minlength=256)
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}
