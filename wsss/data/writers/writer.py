"""What a writer of a data format is, and what it is given: a data set, or a folder of label maps.

A new format is one file with a ``Writer`` in it, listed in ``wsss.data.writers.registry``. A writer fills a temporary
folder, which becomes the output when it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.data.images import image_size, read_content, suffix_of
from wsss.data.masks import IGNORE_INDEX, PALETTE, count_indices
from wsss.data.parts import Part
from wsss.errors import UsageError
from wsss.files import disk_errors, write_whole
from wsss.reporting import Reporter, Silent


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image to write.

    Attributes:
        name: unique, "/"-separated and without an ending.
        image: its file; None where only its label map is there.
        part: where it lies in a shard; None for a file of its own.
        certainty: of the classes in its label map, in [0, 1] by class index; those that are unknown are left out.
        score: certainty of the whole label map, in [0, 1], or None.
        split: its split.
        tags: class names, in the order of the classes.
        unknown: names of classes of which it is not known whether the image has them.
        label: reads its label map, (H, W) uint8 class indices; None where it has none.
    """

    name: str
    image: Path | None
    split: str
    tags: tuple[str, ...]
    label: Callable[[], NDArray[np.uint8]] | None = None
    unknown: tuple[str, ...] = ()
    part: Part | None = None
    certainty: Mapping[int, float] = field(default_factory=dict)
    score: float | None = None

    @property
    def file(self) -> str:
        """Its name with the ending of its file."""
        return self.name + self.suffix()

    def suffix(self) -> str:
        """The ending of its file, or one that fits its content."""
        if self.image is None:
            return ".jpg"
        return self.image.suffix if self.part is None else suffix_of(self.part.read(12))

    def read(self) -> bytes:
        """The bytes of the image.

        Raises:
            UnreadableImage: they cannot be read.
        """
        assert self.image is not None
        return read_content(self.image, self.part)

    def size(self, label_HW: NDArray[np.uint8] | None) -> tuple[int, int]:
        """(H, W) in pixels, of its label map or of the upright image."""
        if label_HW is not None:
            return label_HW.shape[0], label_HW.shape[1]
        assert self.image is not None
        return image_size(self.image, self.part)


@dataclass(kw_only=True, slots=True)
class Export:
    """All that is written.

    Attributes:
        classes: class names; class index k is ``classes[k - 1]``.
        pictures: in their order.
        masks: whether label maps are written.
        copy: whether images are copied; otherwise they are linked to.
        url_prefix: what stands before the names of images, for Label Studio.
        annotations: whether Label Studio gets annotations, which can be edited, and no predictions.
        like: a COCO file with the ids of images and categories, for results.
        shard_bytes: largest size of a shard, unless one sample is larger.
        polygons: whether areas are outlines where a format has both.
        ignored: pixels of IGNORE_INDEX that were left out; counted by ``labels``.
        without_label: images with tags but without a label map, which were left out; counted by ``labels``.
        tags_differ: images whose tags are not the classes in their label maps; counted by ``labels``.
        remarks: what the format cannot hold.
        reporter: gets the progress.
    """

    classes: tuple[str, ...]
    pictures: Sequence[Picture]
    masks: bool = False
    copy: bool = False
    url_prefix: str = "/data/local-files/?d="
    annotations: bool = False
    like: Path | None = None
    polygons: bool = False
    shard_bytes: int = 2**28
    ignored: int = 0
    without_label: int = 0
    tags_differ: int = 0
    remarks: list[str] = field(default_factory=list)
    reporter: Reporter = field(default_factory=Silent)

    def each(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """These pictures one by one; the reporter is told of each."""
        for picture in pictures:
            yield picture
            self.reporter.advance()

    def labels(self) -> Iterator[tuple[Picture, NDArray[np.uint8] | None]]:
        """Each picture with its label map, in which ignored pixels are background; None for an image of no class.

        An image with tags and without a label map is left out, since without areas it would be read as of no class.
        """
        for picture in self.each(self.pictures):
            if picture.label is None:
                self.without_label += bool(picture.tags)
                if not picture.tags:
                    yield picture, None
                continue
            label_HW = picture.label()
            counts = count_indices(label_HW)
            self.ignored += counts.get(IGNORE_INDEX, 0)
            seen = {name for k, name in enumerate(self.classes, start=1) if k in counts}
            self.tags_differ += seen != set(picture.tags)
            yield picture, np.where(label_HW == IGNORE_INDEX, 0, label_HW).astype(np.uint8)

    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(picture.split for picture in self.pictures))

    def place(self, picture: Picture, path: Path) -> None:
        """Put the image at a path, as a link or as a copy; nothing where there is no image."""
        if picture.image is None:
            return
        if picture.part is not None:
            write_whole(path, picture.read())
            return
        source = picture.image.resolve()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self.copy:
                with suppress(OSError, NotImplementedError):  # a file system without links
                    path.symlink_to(source)
                    return
            shutil.copyfile(source, path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A format that can be written.

    Attributes:
        name: as in ``wsss data convert --to``.
        writes: what is written, for messages.
        write: fills a folder.
        needs_masks: whether it holds label maps alone.
        unknown: whether it holds tags that are unknown.
    """

    name: str
    writes: str
    write: Callable[[Path, Export], None]
    needs_masks: bool = True
    unknown: bool = False


def colour(class_index: int) -> tuple[int, int, int]:
    """The VOC colour of a class index, red, green and blue."""
    red, green, blue = PALETTE[class_index].tolist()
    return red, green, blue


def plain_names(export: Export, characters: str, format_name: str) -> None:
    """Refuse class names with characters that a format cannot hold.

    Raises:
        UsageError: a name has one.
    """
    bad = next((name for name in export.classes if any(character in name for character in characters)), None)
    if bad is not None:
        raise UsageError(
            f"class name {bad!r}: {format_name} cannot hold any of {characters!r} in a name", "rename this class"
        )
