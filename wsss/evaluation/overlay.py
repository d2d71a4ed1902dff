"""Pictures for people: label maps over their images, and sheets of captioned tiles.

Shape suffixes: H rows, W columns, 3 channels RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsss.data.masks import IGNORE_INDEX, PALETTE
from wsss.files import write_whole

HATCH_PERIOD = 8
"""Pixels from one stripe of the hatch over ignored pixels to the next."""

HATCH_LIGHT, HATCH_DARK = 235, 175
CONTOUR = 255
GAP = 6
CAPTION_HEIGHT = 20
CAPTION_SIZE = 13


def overlay(image_HW3: NDArray[np.uint8], label_HW: NDArray[np.uint8], *, alpha: float = 0.5) -> NDArray[np.uint8]:
    """Blend the palette colours of a label map into its image and draw white contours.

    Background stays as it is; ignored pixels get a light grey hatch.

    Args:
        image_HW3: RGB.
        label_HW: class indices, 0 background, 255 ignore.
        alpha: weight of the colours, in [0, 1]; contours are drawn at any.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: image and label map differ in size.
    """
    if image_HW3.shape != (*label_HW.shape, 3):
        raise ValueError(f"image {image_HW3.shape} and label map {label_HW.shape} differ in size")
    colour_HW3 = PALETTE[label_HW]
    ignored_HW = label_HW == IGNORE_INDEX
    colour_HW3[ignored_HW] = _hatch(*label_HW.shape)[ignored_HW][:, None]
    blended_HW3 = (1 - alpha) * image_HW3.astype(np.float32) + alpha * colour_HW3
    drawn_HW3 = np.where((label_HW > 0)[..., None], np.rint(blended_HW3).astype(np.uint8), image_HW3)
    drawn_HW3[_contour(label_HW)] = CONTOUR
    return drawn_HW3


def contact_sheet(tiles: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, tile_width: int) -> NDArray[np.uint8]:
    """Lay captioned RGB images out in rows on white, each ``tile_width`` pixels wide.

    Returns:
        (H, W, 3) RGB; W = columns * tile_width plus a gap around each.

    Raises:
        ValueError: no tile, or less than one column or pixel.
    """
    if not tiles or columns < 1 or tile_width < 1:
        raise ValueError(f"cannot lay {len(tiles)} tiles of width {tile_width} out in {columns} columns")
    cells = [_cell(caption, image_HW3, tile_width) for caption, image_HW3 in tiles]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    sheet_HW3 = np.full(
        (sum(heights) + GAP * (len(rows) + 1), columns * (tile_width + GAP) + GAP, 3), 255, dtype=np.uint8
    )
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = GAP + column * (tile_width + GAP)
            sheet_HW3[top : top + cell.shape[0], left : left + tile_width] = cell
        top += height + GAP
    return sheet_HW3


def write_png(path: Path, image_HW3: NDArray[np.uint8]) -> None:
    """Write an RGB image as PNG; the file appears whole or not at all."""
    _write(path, image_HW3, ".png", [])


def write_jpeg(path: Path, image_HW3: NDArray[np.uint8], quality: int = 90) -> None:
    """Write an RGB image as JPEG of quality 0..100; the file appears whole or not at all."""
    _write(path, image_HW3, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def _hatch(height: int, width: int) -> NDArray[np.uint8]:
    """Diagonal stripes in two light greys: (height, width)."""
    diagonal_HW = np.add.outer(np.arange(height), np.arange(width)) % HATCH_PERIOD
    return np.where(diagonal_HW < HATCH_PERIOD // 2, HATCH_LIGHT, HATCH_DARK).astype(np.uint8)


def _contour(label_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class, both of them labelled (not ignored)."""
    edge_HW = np.zeros(label_HW.shape, dtype=np.bool_)
    for here, neighbour, edge in (
        (label_HW[:, :-1], label_HW[:, 1:], edge_HW[:, :-1]),
        (label_HW[:-1], label_HW[1:], edge_HW[:-1]),
    ):
        edge |= (here != neighbour) & (here != IGNORE_INDEX) & (neighbour != IGNORE_INDEX)
    return edge_HW


def _cell(caption: str, image_HW3: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The image at this width with its caption below."""
    height = max(1, round(image_HW3.shape[0] * width / image_HW3.shape[1]))
    shrinks = width < image_HW3.shape[1]
    tile_HW3 = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.concatenate([tile_HW3.astype(np.uint8), _caption(caption, width)])


def _caption(text: str, width: int) -> NDArray[np.uint8]:
    """Dark text on white, cut with dots where it is too long: (CAPTION_HEIGHT, width, 3)."""
    strip = Image.new("RGB", (width, CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(CAPTION_SIZE)
    kept = text
    while kept and draw.textlength(kept if kept == text else f"{kept}...", font=font) > width:
        kept = kept[:-1]
    draw.text((0, 2), kept if kept == text else f"{kept}...", fill=(40, 40, 40), font=font)
    return np.asarray(strip, dtype=np.uint8)


def _write(path: Path, image_HW3: NDArray[np.uint8], suffix: str, options: list[int]) -> None:
    bgr_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR)
    write_whole(path, cv2.imencode(suffix, bgr_HW3, options)[1].tobytes())
