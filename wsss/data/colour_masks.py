"""Masks whose pixel values are no class indices: colours of a table, or files of other names beside the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsss.data.findings import BadData
from wsss.data.images import UnreadableImage, opened

if TYPE_CHECKING:
    from wsss.data.records import Record

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ColourMasks:
    """A ``Truth`` of PNG files, each pixel of which names an entry of a table.

    Attributes:
        files: the mask of each image by its name.
        indices: class index of each entry, 0..K or IGNORE_INDEX.
        colours: colour of each entry; None where the pixel values number the entries.
        table: the file that lists the entries, for messages.
    """

    files: Mapping[str, Path]
    indices: tuple[int, ...]
    colours: tuple[Colour, ...] | None
    table: Path

    def has(self, record: Record) -> bool:
        """Whether there is a mask file."""
        return record.name in self.files

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The class indices of a mask, (H, W) uint8; None where the image has none."""
        path = self.files.get(record.name)
        return None if path is None else np.array(self.indices, np.uint8)[read_entries(path, self.colours, self.table)]


def read_entries(path: Path, colours: tuple[Colour, ...] | None, table: Path) -> NDArray[np.intp]:
    """The entry of a table that each pixel of a PNG names, (H, W), from 0.

    A grey PNG holds the numbers of the entries. Of a palette PNG and an RGB one the colours count, where there are
    colours.

    Raises:
        DataError: it is no such PNG, or a pixel names no entry of the table.
    """
    try:
        with opened(path, path) as image:
            form = f"{image.format} of mode {image.mode}"
            plain = image.mode in ("L", "P", "1") if colours is None else image.mode == "L"
            fits = image.format == "PNG" and (plain or (colours is not None and image.mode in ("P", "RGB", "RGBA")))
            values = np.array(image if plain else image.convert("RGB")) if fits else None
    except UnreadableImage as error:
        what = f"unreadable mask ({error.reason})"
        raise BadData.at("mask-unreadable", path, what, f"replace or delete {path}") from error
    if values is None:
        what = f"a mask must be a grey, palette or RGB PNG, got {form}"
        raise BadData.at("mask-format", path, what, "export the masks again as PNG")
    if plain:
        return _numbers(values, len(colours) if colours is not None else None, path, table)
    assert colours is not None
    code_HW = _codes(values)
    codes, entries = np.unique(_codes(np.array(colours, np.uint8)), return_index=True)
    place_HW = np.searchsorted(codes, code_HW).clip(max=len(codes) - 1)
    unknown = code_HW[codes[place_HW] != code_HW]
    if unknown.size:
        code = int(unknown.min())
        colour = f"{code >> 16},{code >> 8 & 255},{code & 255}"
        what = f"{int((unknown == code).sum())} pixels of colour {colour}, which {table.name} does not declare"
        raise BadData.at("mask-class", path, what, f"add a line for this colour to {table}")
    found_HW: NDArray[np.intp] = entries[place_HW]
    return found_HW


def _codes(colour_X3: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours as numbers 0xRRGGBB, of the shape of all axes but the last."""
    red, green, blue = np.moveaxis(colour_X3.astype(np.int32), -1, 0)
    number_X: NDArray[np.int32] = red << 16 | green << 8 | blue
    return number_X


def _numbers(values_HW: NDArray[np.uint8], number: int | None, path: Path, table: Path) -> NDArray[np.intp]:
    """Pixel values that are the numbers of entries."""
    highest = int(values_HW.max(initial=0))
    if number is not None and highest >= number:
        count = int((values_HW == highest).sum())
        what = f"{count} pixels of value {highest}, but {table.name} declares {number} values from 0"
        raise BadData.at("mask-class", path, what, f"add the missing lines to {table}")
    return values_HW.astype(np.intp)
