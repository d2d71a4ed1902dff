"""Pictures to look at: label maps drawn over their images, sheets of captioned tiles, and keys of the colours.

Shape suffixes: H rows, W columns, 3 channels RGB.
"""

from __future__ import annotations

import io
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsss.data.masks import IGNORE_INDEX
from wsss.files import write_whole
from wsss.outputs.palettes import PaletteName, palette_of

PHOTO_DARK, PHOTO_LIGHT = 60, 225
"""Grey levels that black and white of a photo get below class colours, so that these look alike on every photo."""

HATCH_PERIOD = 8
"""Pixels from one stripe of the hatch over ignored pixels to the next, in pictures of up to ``FINE_SIDE`` pixels."""
HATCH_LIGHT, HATCH_DARK = 255, 70
HATCH_WEIGHT = 0.6
"""Weight of the stripes, in [0, 1]; the rest is the photo."""
FINE_SIDE = 700
"""Mean side, pixels, up to which contours are 1 pixel wide; they and the hatch grow with larger pictures."""
GAP = 6
INK = 40
"""Grey of letters and frames."""

CAPTION_HEIGHT = 20
CAPTION_SIZE = 13
"""Height of the letters of a caption or key, in pixels; more in pictures wider than ``LETTERS_ACROSS`` times this."""

LETTERS_ACROSS = 60
KEY_MIN_WIDTH = 160
"""Width in pixels of a picture with a key; a narrower one gets a white margin on its right."""

LONGEST_SIDE = 65_500
"""Pixels of the longest side that a JPEG can have."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
NO_LETTER = "\uffff"
"""A code point that no font has, so it is drawn as the sign for a missing letter."""

UNDECIDED = "hatched: undecided"
NO_CLASS = "background only"


def overlay(
    image_HW3: NDArray[np.uint8],
    label_HW: NDArray[np.uint8],
    *,
    alpha: float = 0.5,
    palette: PaletteName = "voc",
) -> NDArray[np.uint8]:
    """Blend the colours of a label map into its image, made grey, with contours in the full colour of each class.

    A colour in the picture is thus always a class, and the same on every photo. Ignored pixels are hatched.

    Args:
        image_HW3: RGB.
        label_HW: class indices, 0 background, 255 ignore.
        alpha: weight of the colours, in [0, 1]; contours and hatch do not depend on it.
        palette: the colours of the classes.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: image and label map differ in size.
    """
    if image_HW3.shape != (*label_HW.shape, 3):
        raise ValueError(f"image {image_HW3.shape} and label map {label_HW.shape} differ in size")
    colour_C3, width = palette_of(palette), max(1, round((label_HW.size**0.5) / FINE_SIDE))
    tone_GC3 = _tones(colour_C3, alpha)
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    drawn_HW3: NDArray[np.uint8] = tone_GC3[grey_HW, label_HW]
    edge_HW = _contour(label_HW, width)
    drawn_HW3[edge_HW] = colour_C3[label_HW[edge_HW]]
    rows, columns = np.nonzero(label_HW == IGNORE_INDEX)
    drawn_HW3[rows, columns] = _hatched(drawn_HW3[rows, columns, 0], rows, columns, HATCH_PERIOD * width)[:, None]
    return drawn_HW3


def with_key(
    picture_HW3: NDArray[np.uint8], label: NDArray[np.uint8], classes: Sequence[str], palette: PaletteName = "voc"
) -> NDArray[np.uint8]:
    """Add a key of the classes in ``label`` below a picture.

    Returns:
        (H + h, W', 3) RGB; W' = max(W, KEY_MIN_WIDTH).
    """
    margin = max(0, KEY_MIN_WIDTH - picture_HW3.shape[1])
    widened_HW3 = np.pad(picture_HW3, ((0, 0), (0, margin), (0, 0)), constant_values=255)
    return np.concatenate([widened_HW3, key(label, classes, widened_HW3.shape[1], palette)])


def key(
    label: NDArray[np.uint8], classes: Sequence[str], width: int, palette: PaletteName = "voc"
) -> NDArray[np.uint8]:
    """Draw a key: a swatch in the tone of `overlay` and the name of each class that is in ``label``, on white.

    Args:
        label: class indices of one or more label maps, of any shape.
        classes: foreground class names; class index 1 is the first.
        width: width of the key in pixels, at least about 60.
        palette: the colours of the classes.

    Returns:
        (h, width, 3) RGB; h depends on the number of lines.
    """
    size = _letter_size(width)
    font, line = ImageFont.load_default(size), size * CAPTION_HEIGHT // CAPTION_SIZE
    held = [int(index) for index in np.unique(label) if index]
    left, top, placed = GAP, GAP, []
    for index in held or [0]:
        indent = size * 3 // 2 if index else 0
        text = _cut(_named(index, classes, font), width - 2 * GAP - indent, font)
        taken = indent + round(font.getlength(text))
        if left > GAP and left + taken > width - GAP:
            left, top = GAP, top + line
        placed.append((index, text, (left, top), (left + indent, top + size / 2)))
        left += taken + 2 * size
    strip = Image.new("RGB", (width, top + line), "white")
    for index, text, corner, start in placed:
        if index:
            strip.paste(Image.fromarray(_swatch(index, size, palette)), corner)
        ImageDraw.Draw(strip).text(start, text, (INK,) * 3, font, anchor="lm")
    return np.array(strip, dtype=np.uint8)


def contact_sheet(tiles: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, tile_width: int) -> NDArray[np.uint8]:
    """Lay captioned RGB images out in rows on white, each ``tile_width`` pixels wide.

    Returns:
        (H, W, 3) RGB; W = columns * tile_width plus a gap around each.

    Raises:
        ValueError: no tile, or less than one column or pixel.
    """
    if not tiles or columns < 1 or tile_width < 1:
        raise ValueError(f"cannot lay {len(tiles)} tiles of width {tile_width} out in {columns} columns")
    width = columns * (tile_width + GAP) + GAP
    cells = [_cell(caption, image_HW3, tile_width, _letter_size(width)) for caption, image_HW3 in tiles]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    sheet_HW3 = np.full((sum(heights) + GAP * (len(rows) + 1), width, 3), 255, dtype=np.uint8)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = GAP + column * (tile_width + GAP)
            sheet_HW3[top : top + cell.shape[0], left : left + tile_width] = cell
        top += height + GAP
    return sheet_HW3


def write_jpeg(path: Path, image_HW3: NDArray[np.uint8], quality: int = 90) -> None:
    """Write an RGB image as JPEG of quality 0..100, atomically."""
    write_whole(path, encode_jpeg(image_HW3, quality))


def encode_jpeg(image_HW3: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode an RGB image as JPEG of quality 0..100; it is reduced if a side is above ``LONGEST_SIDE``."""
    longest = max(image_HW3.shape[:2])
    if longest > LONGEST_SIDE:
        height, width = (max(1, side * LONGEST_SIDE // longest) for side in image_HW3.shape[:2])
        image_HW3 = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    bgr_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR)
    sharp = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # contours keep their colours
    return cv2.imencode(".jpg", bgr_HW3, [cv2.IMWRITE_JPEG_QUALITY, quality, *sharp])[1].tobytes()


def write_png(path: Path, image_HW3: NDArray[np.uint8]) -> None:
    """Write an RGB image as PNG, atomically."""
    encoded = io.BytesIO()
    Image.fromarray(image_HW3).save(encoded, "PNG")
    write_whole(path, encoded.getvalue())


def fitted(image_HW3: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """An RGB image reduced to a width; a narrower one as it is."""
    if image_HW3.shape[1] <= width:
        return image_HW3
    height = max(1, round(image_HW3.shape[0] * width / image_HW3.shape[1]))
    return np.asarray(cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def label_at(label_HW: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Resize a label map to ``size`` (h, w) with nearest-neighbour interpolation."""
    if label_HW.shape == size:
        return label_HW
    small_hw = cv2.resize(label_HW, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small_hw, dtype=np.uint8)


def _tones(colour_C3: NDArray[np.uint8], alpha: float) -> NDArray[np.uint8]:
    """The colour of every grey level of a photo below every class: (256, 256, 3) by grey and class index."""
    photo_G = np.linspace(PHOTO_DARK, PHOTO_LIGHT, 256)
    weight_C = np.full(len(colour_C3), alpha)
    weight_C[[0, IGNORE_INDEX]] = 0
    tone_GC3 = (1 - weight_C)[:, None] * photo_G[:, None, None] + weight_C[:, None] * colour_C3
    return np.rint(tone_GC3).astype(np.uint8)


def _swatch(index: int, size: int, palette: PaletteName) -> NDArray[np.uint8]:
    """A square in the tone that a class has on a photo of middle grey, framed as its contour: (size, size, 3) RGB."""
    colour_C3 = palette_of(palette)
    swatch_HW3 = np.full((size, size, 3), INK if index == IGNORE_INDEX else colour_C3[index], dtype=np.uint8)
    inner_HW3 = swatch_HW3[2:-2, 2:-2]
    if index == IGNORE_INDEX:
        grey_HW = np.full(inner_HW3.shape[:2], (PHOTO_DARK + PHOTO_LIGHT) // 2, dtype=np.uint8)
        rows, columns = np.nonzero(grey_HW)
        inner_HW3[rows, columns] = _hatched(grey_HW[rows, columns], rows, columns, HATCH_PERIOD)[:, None]
    else:
        inner_HW3[:] = _tones(colour_C3, 0.5)[128, index]
    return swatch_HW3


def _hatched(
    grey: NDArray[np.uint8], rows: NDArray[np.intp], columns: NDArray[np.intp], period: int
) -> NDArray[np.uint8]:
    """Diagonal stripes over the grey of some pixels; uint8 in the shape of ``grey``."""
    stripe = np.where((rows + columns) % period < period // 2, HATCH_LIGHT, HATCH_DARK)
    return np.rint((1 - HATCH_WEIGHT) * grey + HATCH_WEIGHT * stripe).astype(np.uint8)


def _contour(label_HW: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Pixels of a class within ``width`` pixels of another label; the border of the image is none."""
    square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
    inner_HW = (cv2.erode(label_HW, square) == label_HW) & (cv2.dilate(label_HW, square) == label_HW)
    return np.asarray(~inner_HW & (label_HW > 0) & (label_HW != IGNORE_INDEX), dtype=np.bool_)


def _cell(caption: str, image_HW3: NDArray[np.uint8], width: int, size: int) -> NDArray[np.uint8]:
    """The image resized to ``width``, with its caption below in letters of ``size`` pixels."""
    height = max(1, round(image_HW3.shape[0] * width / image_HW3.shape[1]))
    shrinks = width < image_HW3.shape[1]
    tile_HW3 = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.concatenate([tile_HW3.astype(np.uint8), _caption(caption, width, size)])


def _caption(text: str, width: int, size: int) -> NDArray[np.uint8]:
    """Dark text on white, cut with dots where it is too long: (about 1.5 size, width, 3)."""
    strip = Image.new("RGB", (width, size * CAPTION_HEIGHT // CAPTION_SIZE), "white")
    font = ImageFont.load_default(size)
    ImageDraw.Draw(strip).text((0, 2), _cut(_plain(text), width, font), fill=(INK,) * 3, font=font)
    return np.asarray(strip, dtype=np.uint8)


def _letter_size(width: int) -> int:
    """Height in pixels of the letters in a picture of this width."""
    return max(CAPTION_SIZE, width // LETTERS_ACROSS)


def _named(index: int, classes: Sequence[str], font: Font) -> str:
    """Text of a class in a key; it begins with the class index where the font lacks a letter of the name."""
    if index in (0, IGNORE_INDEX):
        return UNDECIDED if index else NO_CLASS
    name = _plain(classes[index - 1])
    missing = bytes(font.getmask(NO_LETTER))
    return f"{index}: {name}" if any(bytes(font.getmask(letter)) == missing for letter in name) else name


def _plain(text: str) -> str:
    """The text on one line and without accents, which Pillow's default font lacks."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _cut(text: str, width: float, font: Font) -> str:
    """The text, cut and ended with dots if it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = bisect_right(range(1, len(text)), width, key=lambda count: font.getlength(f"{text[:count]}..."))
    return f"{text[:kept]}..."
