"""Whether the images with a class come from another source than those without: the network may learn the source.

Facts of the files that no object decides (size, format, compression, camera) and three of the colours are compared, one
at a time. A fact that tells images with a class from those without is named.

Shape suffixes: N images, F facts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.data.findings import Finding, Place
from wsss.data.images import UnreadableImage, opened, upright_size
from wsss.data.records import Record, TaggedSet
from wsss.data.threads import in_threads

SAMPLE = 300
"""Images that are looked at, spread over the split."""
FEW = 10
"""Both sides of a class need at least this many of them."""
FACTS = {
    "height": 0.8,
    "width": 0.8,
    "ratio of the sides": 0.8,
    "format": 0.8,
    "colour mode": 0.8,
    "JPEG quality": 0.8,
    "bytes a pixel": 0.9,
    "camera (EXIF)": 0.8,
    "brightness": 0.9,
    "contrast": 0.9,
    "colourfulness": 0.9,
}
"""What is compared, and the area under the curve from which it is told. Objects and their scenes decide some of the
colours and of the bytes, so that these need more. The largest of 88 areas of VOC animals and COCO128 is 0.71."""
BINS, FOLDS = 8, 5
DRAFT = 64
"""Side, in pixels, at which colours are read."""
EXIF_MAKE, EXIF_MODEL = 0x010F, 0x0110


def class_sources(tagged: TaggedSet) -> Iterator[Finding]:
    """A finding for each class whose images a single fact of their files tells from the others."""
    step = max(1, len(tagged) // SAMPLE)
    records = tagged.columns.take(np.arange(0, len(tagged), step, dtype=np.int64)[:SAMPLE])
    count_K = np.bincount(records.tags.values, minlength=len(tagged.classes))
    classes = np.flatnonzero((count_K >= FEW) & (len(records) - count_K >= FEW)).tolist()
    if not classes:
        return
    found = [(record, facts) for record, facts in zip(records, in_threads(_facts, records), strict=True) if facts]
    if not found:
        return
    fact_NF = np.array([facts for _, facts in found], dtype=np.float64)
    for k in classes:
        known_N = np.array([k not in record.unknown for record, _ in found])
        has_N = np.array([k in record.tags for record, _ in found])[known_N]
        if min(has_N.sum(), (~has_N).sum()) < FEW:
            continue
        areas = {name: separability(fact_NF[known_N, f], has_N) for f, name in enumerate(FACTS)}
        telling = {name: area for name, area in areas.items() if area >= FACTS[name]}
        if telling:
            name = max(telling, key=lambda one: telling[one])
            beside = f" (so do {', '.join(other for other in telling if other != name)})" if len(telling) > 1 else ""
            what = f"the {name} of the files tells images with {tagged.classes[k]!r} from those without, at an area"
            what += f" under the curve of {telling[name]:.2f}{beside}: the network may learn the source"
            mend = f"take images with and without {tagged.classes[k]!r} from the same sources, or store all alike"
            yield Finding("class-source", Place(tagged.root / tagged.tags_source), what, mend)


def separability(value_N: NDArray[np.float64], has_N: NDArray[np.bool_]) -> float:
    """How well one fact tells images with a class from those without: area under the ROC curve, 0.5 by chance.

    The values are put in bins; an image scores the share of images with the class in its bin among the other folds, so
    that any relation counts and chance does not.

    Args:
        value_N: of the fact.
        has_N: which images have the class; both kinds occur.
    """
    kinds = np.unique(value_N)
    edges = kinds[1:] if len(kinds) <= BINS else np.unique(np.quantile(value_N, np.arange(1, BINS) / BINS))
    bin_N = np.searchsorted(edges, value_N, side="right")
    fold_N = np.empty(len(value_N), np.int64)
    for side in (True, False):  # each fold gets its part of both
        fold_N[has_N == side] = np.arange(int((has_N == side).sum())) % FOLDS
    score_N = np.empty(len(value_N))
    for fold in range(FOLDS):
        others, own = fold_N != fold, fold_N == fold
        of_bin = np.bincount(bin_N[others], minlength=len(edges) + 1)
        with_class = np.bincount(bin_N[others & has_N], minlength=len(edges) + 1)
        score_N[own] = ((with_class + has_N.mean()) / (of_bin + 1))[bin_N[own]]
    difference = score_N[has_N][:, None] - score_N[~has_N][None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def _facts(record: Record) -> list[float] | None:
    """``FACTS`` of an image, as numbers; None where it cannot be read."""
    try:
        content = record.read()
        with opened(record.image, io.BytesIO(content)) as image:
            return [*_of_header(image, len(content)), *_of_colours(image, record.image)]
    except UnreadableImage:
        return None


def _of_header(image: Image.Image, length: int) -> list[float]:
    height, width = upright_size(image)
    tables = getattr(image, "quantization", None) or {}
    exif = image.getexif()
    camera = f"{exif.get(EXIF_MAKE, '')}{exif.get(EXIF_MODEL, '')}"
    return [
        height,
        width,
        width / height,
        _number(str(image.format)),
        _number(image.mode),
        sum(tables[0]) if 0 in tables else 0,
        length / (height * width),
        _number(camera),
    ]


def _number(word: str) -> float:
    """A number for a word: the same for the same word, another for nearly any other."""
    return float(int.from_bytes(word.encode()[-12:], "little") % 999_983)


def _of_colours(image: Image.Image, path: Path) -> list[float]:
    """Brightness, contrast and colourfulness, in 8-bit levels."""
    try:
        image.draft("RGB", (DRAFT, DRAFT))
        small_HW3 = np.asarray(image.convert("RGB").resize((DRAFT, DRAFT), Image.Resampling.BOX), dtype=np.float64)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(path, error) from error
    grey_HW = small_HW3.mean(axis=2)
    return [grey_HW.mean(), grey_HW.std(), (small_HW3.max(axis=2) - small_HW3.min(axis=2)).mean()]
