"""Images as the Python interface takes them: arrays, PIL images or paths.

Shape suffixes: H rows, W columns, 3 RGB.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wsss.data.images import FULL_LEVELS, ONLY_PILLOW, Levels, decode_image, levelled, read_content

ImageLike: TypeAlias = "NDArray[np.uint8] | Image.Image | str | Path"
"""An array (H, W, 3) uint8 RGB, a PIL image, or the path of an image file."""


def image_array(image: ImageLike, levels: Levels | None = None) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB. PIL images and files are turned upright as their EXIF orientation asks.

    Of 16 bits the upper 8 are kept, or the range ``levels``, as of files.

    Raises:
        TypeError: it is neither an array of uint8, nor a PIL image, nor a path.
        ValueError: the array has another shape, or the PIL image holds numbers without a range (modes I and F).
        UnreadableImage: the file cannot be read.
    """
    if isinstance(image, str | Path):
        path = Path(image)
        return decode_image(read_content(path), path, levels)
    if isinstance(image, Image.Image):
        return _pil_array(_upright(image), levels or FULL_LEVELS)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"an image is an array (H, W, 3) of uint8, a PIL image or a path, got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image array has the shape (H, W, 3), got {image.shape}")
    return np.require(image, requirements=["C_CONTIGUOUS", "WRITEABLE"])  # torch warns of arrays that it may not write


def _upright(image: Image.Image) -> Image.Image:
    """A PIL image turned as its EXIF orientation asks; one in other metadata takes no part, as for files."""
    image.load()  # some metadata of a PNG follow its pixels
    others = {key: image.info.pop(key) for key in ONLY_PILLOW if key in image.info}
    try:
        return ImageOps.exif_transpose(image)
    finally:
        image.info.update(others)


def _pil_array(image: Image.Image, levels: Levels) -> NDArray[np.uint8]:
    """An upright PIL image as (H, W, 3) uint8 RGB."""
    if image.mode.startswith("I;16"):  # Pillow's own conversion cuts values off at 255
        grey_HW = levelled(np.asarray(image, dtype=np.uint16), levels)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"a PIL image of mode {image.mode} has no known range: scale it to 8 bits first")
    return np.array(image.convert("RGB"), dtype=np.uint8)
