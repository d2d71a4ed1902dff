"""Find broken image files before a run does: a JPEG cut short decodes without complaint, its end grey."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from wsss.data.images import HEADER_ERRORS
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError

THREADS = min(8, 2 * (os.cpu_count() or 1))
DRAFT = 8
"""JPEGs are decoded at 1/8 of their size: every byte is read, few pixels are computed."""


def keep_readable(
    tagged: TaggedSet, *, limit: float = 0.01, on_progress: Callable[[int], None] | None = None
) -> tuple[TaggedSet, tuple[str, ...]]:
    """Leave out the images that cannot be decoded to their end.

    Args:
        tagged: the set; every image file of it is read once.
        limit: share of broken images, in [0, 1], above which the set is refused.
        on_progress: called after each image with the number of images done.

    Returns:
        The set without them, and "NAME: why" for each.

    Raises:
        DataError: more than ``limit`` of them are broken, or all.
    """
    kept, broken = keep_readable_records(tagged.records, on_progress=on_progress)
    if len(broken) > limit * len(tagged) or (broken and not kept):
        raise DataError(
            f"{tagged.root}: {len(broken)} of {len(tagged)} images are unreadable ({'; '.join(broken[:3])})",
            "copy these files again, or take them out of the split",
        )
    return replace(tagged, records=kept), broken


def keep_readable_records(
    records: Sequence[Record], *, on_progress: Callable[[int], None] | None = None
) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The records whose images decode to their end, and "NAME: why" for each other."""
    pool = ThreadPoolExecutor(THREADS)
    reasons = []
    try:
        for reason in pool.map(why_unreadable, [record.image for record in records]):
            reasons.append(reason)
            if on_progress is not None:
                on_progress(len(reasons))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest
    pairs = list(zip(records, reasons, strict=True))
    kept = tuple(record for record, reason in pairs if reason is None)
    broken = tuple(f"{record.name}: {reason}" for record, reason in pairs if reason is not None)
    return kept, broken


def why_unreadable(path: Path) -> str | None:
    """What the decoder says of a broken image; None for a good one."""
    try:
        with Image.open(path) as image:
            image.draft("L", (max(1, image.width // DRAFT), max(1, image.height // DRAFT)))
            image.load()
    except HEADER_ERRORS as error:
        return str(error)
    return None
