"""Find broken image files before a run does: a JPEG cut short decodes without complaint, its end grey."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from wsss.data.images import UnreadableImage, empty, explained, opened, stored_mode, upright_size
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError

THREADS = min(8, 2 * (os.cpu_count() or 1))
DRAFT = 8
"""JPEGs are decoded at 1/8 of their size: every byte is read, few pixels are computed."""
MAX_BYTES = 2**31
"""Larger files are refused unread; so many bytes hold any image of as many pixels as are read."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """What is known of an image that decodes to its end.

    Attributes:
        size: (H, W), upright.
        format: one of ``wsss.data.images.FORMATS``, whatever the suffix says.
        mode: Pillow's, "RGB" or "CMYK" for example.
        bits: of a sample, 8 or 16.
        frames: more than one in an animation or a TIFF of several pages.
        transparent: whether some pixel is not opaque.
        digest: of the content; copies share it.
    """

    size: tuple[int, int]
    format: str
    mode: str
    bits: int
    frames: int
    transparent: bool
    digest: bytes


def keep_readable(
    tagged: TaggedSet, *, limit: float = 0.01, on_progress: Callable[[int], None] | None = None
) -> tuple[TaggedSet, tuple[str, ...]]:
    """Leave out the images that cannot be decoded to their end.

    Args:
        tagged: the set; every image file of it is read once.
        limit: share of broken images, in [0, 1], above which the set is refused; a single one is left out however
            small the set is, unless the limit is 0.
        on_progress: called after each image with the number of images done.

    Returns:
        The set without them, and "NAME: why" for each.

    Raises:
        DataError: more than ``limit`` of them are broken, and more than one; or all.
    """
    kept, broken = keep_readable_records(tagged.records, on_progress=on_progress)
    if len(broken) > (max(1, limit * len(tagged)) if limit else 0) or (broken and not kept):
        raise too_many_broken(tagged, broken)
    return replace(tagged, records=kept), broken


def too_many_broken(tagged: TaggedSet, broken: Sequence[str]) -> DataError:
    """More than a training skips of itself, and the limit, in whole hundredths, that would let them pass."""
    problem = f"{tagged.root}: {len(broken)} of {len(tagged)} images are unreadable ({'; '.join(broken[:3])})"
    check = f"wsss data check {tagged.root}"
    if len(broken) == len(tagged):
        return DataError(problem, f"{check}  # names every one")
    passing = (100 * len(broken) // len(tagged) + 1) / 100
    return DataError(problem, f"--set data.bad_limit={passing:g}  # skips them; {check} names every one")


def keep_readable_records(
    records: Sequence[Record], *, on_progress: Callable[[int], None] | None = None
) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The records whose images decode to their end, and "NAME: why" for each other."""
    reasons = []
    for reason in in_threads(why_unreadable, [record.image for record in records]):
        reasons.append(reason)
        if on_progress is not None:
            on_progress(len(reasons))
    pairs = list(zip(records, reasons, strict=True))
    kept = tuple(record for record, reason in pairs if reason is None)
    broken = tuple(f"{record.name}: {reason}" for record, reason in pairs if reason is not None)
    return kept, broken


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results in order; decoders release the interpreter, so that threads help."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest


def why_unreadable(path: Path) -> str | None:
    """What is wrong with a broken image; None for a good one."""
    try:
        examine_image(path)
    except UnreadableImage as error:
        return error.reason
    return None


def examine_image(path: Path) -> ImageFacts:
    """Decode an image to its end, by Pillow, which tells where one is cut short, and by OpenCV, which is to read it.

    Raises:
        UnreadableImage: one of the two fails, they disagree about the size, or it is too large.
    """
    content = read_content(path)
    with opened(path, io.BytesIO(content)) as image:
        mode, stored = image.mode, stored_mode(image)
        size = upright_size(image)  # which decodes a PNG
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.draft("L", (max(1, image.width // DRAFT), max(1, image.height // DRAFT)))
        image.load()
        facts = ImageFacts(
            size=size,
            format="JPEG" if image.format == "MPO" else str(image.format),  # what phones add to a photo
            mode=mode,
            bits=16 if ";16" in stored else 8,
            frames=frames,
            transparent=is_transparent(image),
            digest=blake2b(content, digest_size=16).digest(),
        )
    compare_opencv(path, content, facts)
    return facts


def read_content(path: Path) -> bytes:
    """The bytes of a regular file that is neither empty nor huge."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would keep the reader waiting
            raise UnreadableImage(path, "no regular file", "image-irregular")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(path, f"{status.st_size} bytes; at most {MAX_BYTES} are read", "image-huge")
        content = path.read_bytes()
    except OSError as error:
        raise explained(path, error) from error
    if not content:
        raise empty(path)
    return content


def is_transparent(image: Image.Image) -> bool:
    """Whether some pixel of a decoded image is not opaque."""
    return image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def compare_opencv(path: Path, content: bytes, facts: ImageFacts) -> None:
    """Refuse what OpenCV does not decode, or to another size than the header tells: batches count on that."""
    step = DRAFT if facts.format == "JPEG" and distinct(facts.size) else 1
    flags = cv2.IMREAD_COLOR if step == 1 else cv2.IMREAD_REDUCED_COLOR_8
    try:
        image_hw3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:
        raise UnreadableImage(path, " ".join(str(error).split()), "image-undecodable") from error
    if image_hw3 is None:
        what = f"OpenCV cannot decode this {facts.format} of mode {facts.mode}"
        raise UnreadableImage(path, what, "image-undecodable")
    if image_hw3.shape[:2] != reduced(facts.size, step):
        raise UnreadableImage(path, "its EXIF is damaged: decoders disagree about its size", "image-turned")


def reduced(size: tuple[int, int], step: int) -> tuple[int, int]:
    """(H, W) of a JPEG decoded at one ``step``-th of each side."""
    return -(-size[0] // step), -(-size[1] // step)


def distinct(size: tuple[int, int]) -> bool:
    """Whether a reduced JPEG still shows if it lies on its side."""
    height, width = reduced(size, DRAFT)
    return height != width or size[0] == size[1]
