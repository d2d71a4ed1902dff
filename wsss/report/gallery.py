"""The gallery of the page: images with their label maps, small, and what orders and filters them.

Label maps that are scored are packed while their files are open; of the others only those that the page shows are read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, count_indices, read_mask
from wsss.data.records import Record, counted
from wsss.data.threads import in_threads
from wsss.errors import DataError
from wsss.evaluation.errors import ErrorKind
from wsss.inference.evaluate import BACKGROUND, ScoredImage, read_scores
from wsss.outputs.palettes import PaletteName, palette_of
from wsss.report.layers import Cell, Item, Layer
from wsss.report.thumbnails import label_text, photo_text, scores_text, small_size, unpacked
from wsss.reporting import Reporter, first_few

MOST_BYTES = 14_000_000
"""Of all images together; the page is then smaller than 15 MB."""
SIDES = (384, 320, 256, 224, 192, 160, 128)
"""Longest side of a picture, pixels: the largest at which all images are expected to have room, or the last."""
PHOTO_BYTES, MAP_BYTES = 0.16, 6.6
"""Base64 text that a photo takes by the square of its side, and a label map by its side (150 photos of VOC)."""

NOTHING = Cell()
"""What a layer has of an image that it does not hold."""

Result = TypeVar("Result")


class Gallery:
    """Images of some layers.

    Args:
        layers: in the order of the page.
        limit: images shown at most; None where the size of the page alone limits them.
    """

    def __init__(self, layers: Sequence[Layer], limit: int | None = None) -> None:
        self.layers = layers
        self.limit = limit
        self.classes = list(dict.fromkeys(name for layer in layers for name in layer.classes))
        if len(self.classes) >= IGNORE_INDEX:
            what = f"{', '.join(str(layer.root) for layer in layers)} have {len(self.classes)} classes together"
            raise DataError(what, "wsss report FOLDER -o report.html  # one page each")
        self.indices = [layer.indices(self.classes) for layer in layers]
        self.items: dict[tuple[str, str], Item] = {}
        for number, layer in enumerate(layers):
            self._join(number, layer)
        self.side = fitting_side(min(len(self.items), limit or len(self.items)), len(layers) + 1)
        self.unreadable: list[str] = []

    def _join(self, number: int, layer: Layer) -> None:
        """Add the images of a layer; two layers share an image of the same name and bytes."""
        for name in layer.labels:
            item = self._item(number, name)
            item.cells[number] = Cell(doubt=layer.doubt(name))
            entry = layer.entries.get(name)
            if entry is not None:
                old = [*(tag + 1 for tag in entry.tags), *entry.pixels]
                item.held |= set(self.indices[number][old].tolist())

    def _item(self, number: int, name: str) -> Item:
        entry = self.layers[number].entries.get(name)
        key = (name, "" if entry is None else entry.image)
        origin = None if entry is None else Path(entry.origin)
        return self.items.setdefault(key, Item(name=name, origin=origin))

    def tell(self, number: int, records: Sequence[Record]) -> None:
        """Say which records of the data the images of a layer are."""
        for record in records:
            if record.name in self.layers[number].labels:
                self._item(number, record.name).record = record

    def add(self, number: int, image: ScoredImage) -> None:
        """Take a scored image of a layer (``evaluate_labels(on_image=...)``)."""
        item, index_256 = self._item(number, image.record.name), self.indices[number]
        iou = image.matrix.mean_iou()
        cell = item.cells[number]
        cell.map = label_text(image.label_HW, self.side, index_256)
        cell.iou = None if np.isnan(iou) else iou
        cell.errors = _errors(image, index_256)
        item.truth = item.truth or label_text(image.truth_HW, self.side, index_256)
        item.held |= set(index_256[list(count_indices(image.truth_HW))].tolist())

    def content(self, reporter: Reporter, palette: PaletteName = "voc") -> dict[str, Any]:
        """Plain values for the page: classes, colours, layers and as many images as there is room for.

        Args:
            reporter: progress, and what cannot be read.
            palette: colours of the classes.
        """
        images = self._images(reporter)
        if self.unreadable:
            what = f"{counted(len(self.unreadable), 'file')} of the gallery cannot be read"
            reporter.say(f"{what}, and left out: {first_few(sorted(self.unreadable))}")
        judged = {k for item in self.items.values() for k, cell in item.cells.items() if cell.iou is not None}
        return {
            "classes": [BACKGROUND, *self.classes],
            "colours": palette_of(palette)[: len(self.classes) + 1].tolist(),
            "kinds": [kind.name.lower().replace("_", " ") for kind in ErrorKind],
            "layers": [
                {"title": title, "class_map": title.replace(layer.kind, "class map", 1), "judged": k in judged}
                for k, (layer, title) in enumerate(zip(self.layers, titles(self.layers), strict=True))
            ],
            "images": images,
            "total": len(self.items),
        }

    def _images(self, reporter: Reporter) -> list[dict[str, Any]]:
        chosen = by_interest(list(self.items.values()), len(self.layers))[: self.limit]
        reporter.begin("gallery", len(chosen))
        images: list[dict[str, Any]] = []
        used = 0
        with closing(in_threads(self._plain, chosen)) as plain:
            for image in plain:
                used += len(json.dumps(image)) + 2
                if used > MOST_BYTES:
                    break
                images.append(image)
                reporter.advance()
        return images

    def _plain(self, item: Item) -> dict[str, Any]:
        """An image as plain values; its photo, and label maps that were not scored, are read."""
        numbers = range(len(self.layers))
        cells, maps = [item.cells.get(k, NOTHING) for k in numbers], [self._map(k, item) for k in numbers]
        image_HW3 = self._read(item.origin or item.name, item.decode)
        size = (0, 0) if image_HW3 is None else small_size((image_HW3.shape[0], image_HW3.shape[1]), self.side)
        return {
            "name": item.name,
            "size": size,
            "photo": "" if image_HW3 is None else photo_text(image_HW3, size),
            "maps": maps,
            "scores": [self._scores(k, item) for k in numbers],
            "truth": item.truth,
            "classes": sorted(item.held - {0, IGNORE_INDEX}),
            "iou": [_rounded(cell.iou) for cell in cells],
            "doubt": [_rounded(cell.doubt) for cell in cells],
            "errors": [cell.errors for cell in cells],
            "agreement": [_rounded(agreement(k, maps)) for k in numbers],
        }

    def _map(self, number: int, item: Item) -> str:
        cell, path = item.cells.get(number), self.layers[number].labels.get(item.name)
        if cell is None or path is None or cell.map:
            return "" if cell is None else cell.map
        label_HW = self._read(path, lambda: read_mask(path))
        return "" if label_HW is None else label_text(label_HW, self.side, self.indices[number])

    def _scores(self, number: int, item: Item) -> str:
        layer = self.layers[number]
        path = layer.scores / f"{item.name}.npz"
        if number not in item.cells or not path.is_file():
            return ""
        scores = self._read(path, lambda: read_scores(path, len(layer.classes)))
        return "" if scores is None else scores_text(scores[0], scores[1], self.indices[number])

    def _read(self, path: Path | str, read: Callable[[], Result]) -> Result | None:
        """What is read; None, and counted, where it cannot be."""
        try:
            return read()
        except DataError:
            self.unreadable.append(str(path))
            return None


def fitting_side(images: int, maps: int) -> int:
    """The longest side of pictures at which so many images, each with so many maps, are expected to have room."""

    def expected(side: int) -> float:
        return images * (PHOTO_BYTES * side**2 + MAP_BYTES * side * maps)

    return next((side for side in SIDES if expected(side) <= MOST_BYTES), SIDES[-1])


def by_interest(items: Sequence[Item], layers: int) -> list[Item]:
    """The images in the order in which the page takes them while there is room.

    Of each layer the worst, the best and the most doubtful come in turns, each with one that is drawn by chance.
    """
    orders = [by_chance(items)]
    for k in range(layers):
        worst = sorted((item for item in items if _iou(item, k) is not None), key=lambda item: _iou(item, k) or 0)
        doubtful = sorted((item for item in items if k in item.cells), key=lambda item: -(item.cells[k].doubt or 0))
        orders += [worst, worst[::-1], doubtful]
    return list({id(item): item for rank in zip_longest(*orders) for item in rank if item is not None}.values())


def by_chance(items: Iterable[Item]) -> list[Item]:
    """The images in an order by chance that is the same each time: that of the hashes of their names."""
    return sorted(items, key=lambda item: hashlib.sha256(item.name.encode("utf-8", "surrogatepass")).digest())


def titles(layers: Sequence[Layer]) -> list[str]:
    """A short name of each layer: its kind; where several are of one kind, also where their paths differ."""
    names = []
    for layer in layers:
        roots = [str(other.root.absolute()) for other in layers if other.kind == layer.kind]
        below = os.path.relpath(layer.root.absolute(), os.path.commonpath(roots))
        names.append(layer.kind if len(roots) == 1 else f"{layer.kind} {below}")
    return names


def agreement(number: int, maps: Sequence[str]) -> float | None:
    """The share of places at which a packed label map has the label of the others, their mean; None without others."""
    if not maps[number]:
        return None
    own_hw = unpacked(maps[number])
    others = [unpacked(text) for k, text in enumerate(maps) if k != number and text]
    shares = [float(np.mean(own_hw == other_hw)) for other_hw in others if other_hw.shape == own_hw.shape]
    return sum(shares) / len(shares) if shares else None


def _iou(item: Item, number: int) -> float | None:
    return item.cells[number].iou if number in item.cells else None


def _errors(image: ScoredImage, index_256: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """``Cell.errors`` of a scored image."""
    if image.errors is None:
        return []
    scored = max(1, int(image.matrix.counts.sum()))
    share_CE = np.rint(1000 * image.errors.counts / scored).astype(int)
    return [(int(index_256[c]), int(e), int(share_CE[c, e])) for c, e in np.argwhere(share_CE)]


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
