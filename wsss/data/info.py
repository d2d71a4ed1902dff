"""What a data folder is: its format and why, classes, splits, tags, classes that occur together, sizes of images.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.findings import Note, refuse
from wsss.data.index import scan_images
from wsss.data.lessons import pairs_together
from wsss.data.readers.registry import find_reader, recognise
from wsss.data.records import TaggedSet
from wsss.reporting import Reporter


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One split.

    Attributes:
        images: how many it has.
        by_class: how many of them have each class.
        by_tags: how many of them have 0, 1, 2, ... tags.
        masks: how many of them have a mask.
        origin: where the tags come from; empty where that is the folder.
    """

    images: int
    by_class: dict[str, int]
    by_tags: dict[int, int]
    masks: int
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DataInfo:
    """A data folder.

    Attributes:
        root: the folder.
        format: name of the reader.
        why: why it was recognised as such.
        classes: in the order of their indices.
        splits: by name.
        together: how many images of all splits have both of two classes; each pair of these once.
        sizes: how many images have each size, as "WIDTHxHEIGHT", the most frequent first; unreadable ones not.
    """

    root: Path
    format: str
    why: str
    classes: tuple[str, ...]
    splits: dict[str, SplitInfo]
    together: dict[tuple[str, str], int]
    sizes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "data": str(self.root),
            "format": self.format,
            "why": self.why,
            "classes": [*self.classes],
            "splits": {
                name: {
                    "images": one.images,
                    "classes": one.by_class,
                    "tags_per_image": {str(tags): count for tags, count in one.by_tags.items()},
                    "masks": one.masks,
                    "tags_source": one.origin,
                }
                for name, one in self.splits.items()
            },
            "together": [[*pair, count] for pair, count in self.together.items()],
            "sizes": self.sizes,
        }


def describe_data(root: Path, reporter: Reporter, *, reading: Reading | None = None, note: Note = refuse) -> DataInfo:
    """Describe a data folder.

    Raises:
        DataError: it is of no format or of several, or at fault.
    """
    reader = find_reader(root, reading)
    names = list_splits(root, reading, note=note, reporter=reporter)
    sets = [open_data(root, split=name, reading=reading, note=note, reporter=reporter) for name in names]
    records = {record.name: record for tagged in sets for record in tagged.records}
    sizes = scan_images(list(records.values()), reporter).sizes() if records else []
    counts = Counter(f"{size[1]}x{size[0]}" for size in sizes if size is not None)
    return DataInfo(
        root=root,
        format=reader.name,
        why=recognise(root, reading, {reader.name: reader}).get(reader.name, "asked for"),
        classes=sets[0].classes,
        splits={tagged.split: _split_info(tagged) for tagged in sets},
        together=_together([record.tags for record in records.values()], sets[0].classes),
        sizes=dict(counts.most_common()),
    )


def _split_info(tagged: TaggedSet) -> SplitInfo:
    by_tags = Counter(tagged.columns.tags.lengths().tolist())
    return SplitInfo(
        images=len(tagged),
        by_class=tagged.images_by_class(),
        by_tags=dict(sorted(by_tags.items())),
        masks=sum(map(tagged.has_truth, tagged.records)),
        origin=tagged.tags_source,
    )


def _together(tags: list[tuple[int, ...]], classes: tuple[str, ...]) -> dict[tuple[str, str], int]:
    """How many images have two classes at once, the most frequent pair first; pairs that never occur are left out."""
    both_KK = pairs_together(tags, len(classes))
    first, second = np.nonzero(np.triu(both_KK, 1))
    pairs = {(classes[a], classes[b]): int(both_KK[a, b]) for a, b in zip(first, second, strict=True)}
    return dict(sorted(pairs.items(), key=lambda pair: -pair[1]))
