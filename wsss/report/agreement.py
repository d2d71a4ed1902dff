"""How far the label maps of two layers agree: of two rounds, two runs, or a pseudo label and a prediction.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.data.threads import in_threads
from wsss.errors import DataError
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.report.gallery import Gallery, by_chance, titles
from wsss.report.layers import Item
from wsss.reporting import Reporter

SAMPLE = 500
"""Images that are read of each pair of layers at most, drawn by chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far two layers agree; shares are in [0, 1], NaN where no pixel is counted.

    Attributes:
        first, second: titles of the layers.
        images: that were compared.
        same: share of all pixels with the same label; two ignored pixels have the same.
        decided: share of all pixels that both give a class.
        same_decided: share of these with the same class.
        mean_iou: over the classes, of these pixels; it does not matter which of the two is taken for the truth.
    """

    first: str
    second: str
    images: int
    same: float
    decided: float
    same_decided: float
    mean_iou: float


def agreements(gallery: Gallery, reporter: Reporter) -> Iterator[Agreement]:
    """The agreement of each pair of layers that share images.

    Args:
        gallery: the layers and their images; label maps are read anew, at their full size.
        reporter: progress.
    """
    names = titles(gallery.layers)
    for first, second in combinations(range(len(names)), 2):
        shared = [item for item in by_chance(gallery.items.values()) if {first, second} <= item.cells.keys()][:SAMPLE]
        if shared:
            reporter.begin(f"agreement of {names[first]} and {names[second]}", len(shared))
            yield _agreement(gallery, (first, second), shared, reporter)


def _agreement(gallery: Gallery, pair: tuple[int, int], items: Sequence[Item], reporter: Reporter) -> Agreement:
    names = titles(gallery.layers)
    matrix = ConfusionMatrix(len(gallery.classes) + 1)
    images = same = pixels = 0
    for labels in in_threads(partial(_read, gallery, pair), items):
        reporter.advance()
        if labels is None:
            continue
        one_HW, other_HW = labels
        images += 1
        same += int(np.count_nonzero(one_HW == other_HW))
        pixels += one_HW.size
        matrix.update(one_HW, np.where(one_HW == IGNORE_INDEX, one_HW, other_HW))
    return Agreement(
        first=names[pair[0]],
        second=names[pair[1]],
        images=images,
        same=same / pixels if pixels else float("nan"),
        decided=int(matrix.counts.sum()) / pixels if pixels else float("nan"),
        same_decided=matrix.pixel_accuracy(),
        mean_iou=matrix.mean_iou(),
    )


def _read(gallery: Gallery, pair: tuple[int, int], item: Item) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The two label maps of an image; None where one cannot be read, or they differ in size."""
    paths = [gallery.layers[k].labels[item.name] for k in pair]
    try:
        one_HW, other_HW = (gallery.indices[k][read_mask(path)] for k, path in zip(pair, paths, strict=True))
    except DataError:
        return None
    return (one_HW, other_HW) if one_HW.shape == other_HW.shape else None
