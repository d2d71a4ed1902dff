"""Folders of label maps as layers of the gallery, and the images that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.data.images import read_image
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import Record
from wsss.files import files_below
from wsss.inference.review import doubt_of
from wsss.outputs.journal import Entry, read_journal
from wsss.outputs.manifest import find_predictions

KINDS = {"pseudo": "pseudo label", "segmentation": "prediction"}
"""What a layer is called by the kind of its manifest; others are called label maps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A folder of label maps.

    Attributes:
        root: the folder.
        kind: "pseudo label", "prediction" or "label map".
        classes: names of its foreground classes.
        labels: files of its label maps by the name of the image.
        scores: folder of its class scores NAME.npz; need not exist.
        entries: of its journal, by name.
        by_margin: what doubt is, see ``wsss.inference.review``.
    """

    root: Path
    kind: str
    classes: tuple[str, ...]
    labels: dict[str, Path]
    scores: Path
    entries: dict[str, Entry]
    by_margin: bool

    @classmethod
    def read(cls, root: Path) -> Layer | None:
        """The layer of a folder with a manifest; None where that names no classes.

        Raises:
            DataError: the manifest is broken.
        """
        found = find_predictions(root)
        if found.making.classes is None:
            return None
        files = {path.relative_to(found.labels).as_posix(): path for path in files_below(found.labels)}
        return cls(
            root=root,
            kind=KINDS.get(found.making.kind, "label map"),
            classes=found.making.classes,
            labels={name[:-4]: path for name, path in sorted(files.items()) if name.endswith(".png")},
            scores=found.scores,
            entries=read_journal(root),
            by_margin=found.making.kind == "segmentation",
        )

    def doubt(self, name: str) -> float | None:
        """Of a label map, in [0, 1]; None where the journal does not tell."""
        entry = self.entries.get(name)
        return None if entry is None else doubt_of(entry, entry.pixels, by_margin=self.by_margin)

    def indices(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """(256,) the class index that each class index has where the classes are ``names``; others become ignored."""
        index_256 = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        index_256[0] = 0
        index_256[1 : 1 + len(self.classes)] = [1 + names.index(name) for name in self.classes]
        return index_256


@dataclass(kw_only=True, slots=True)
class Cell:
    """What a layer has of an image.

    Attributes:
        map: the packed label map; empty until it is read.
        doubt: in [0, 1]; None where unknown.
        iou: mean over the classes of prediction and truth, in [0, 1]; None where it was not scored.
        errors: lost pixels as (class index, kind, thousandths of the scored pixels).
    """

    map: str = ""
    doubt: float | None = None
    iou: float | None = None
    errors: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Item:
    """An image of the gallery; class indices are those of the page.

    Attributes:
        name: of the image.
        origin: its file when a layer was made; None where no journal tells.
        record: of the data; None where they were not opened.
        cells: by the number of the layer.
        held: class indices in tags, label maps or the truth.
        truth: the packed mask; empty where the image was not scored.
    """

    name: str
    origin: Path | None
    record: Record | None = None
    cells: dict[int, Cell] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    truth: str = ""

    def decode(self) -> NDArray[np.uint8] | None:
        """The photo, (H, W, 3) RGB; None where nothing tells its file.

        Raises:
            UnreadableImage: it is gone or broken.
        """
        if self.record is not None:
            return self.record.decode()
        return None if self.origin is None else read_image(self.origin)
