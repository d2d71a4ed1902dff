"""Records: what is known of each image of a set, and the sets that training, labelling and evaluation take.

A record never knows its mask. ``TaggedSet.truth`` reads it, which only evaluation calls, so that training and labelling
run with the mask folder deleted.

Shape suffixes: N records, M of them, K classes, D bytes of a digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from wsss.data.columns import Lists, Texts
from wsss.data.entries import Stamp, file_stamp, file_stamps
from wsss.data.facts import DIGEST_BYTES, image_digest
from wsss.data.geo import TIFF_SUFFIXES, band_bits, has_rasterio, read_bands, valid_pixels
from wsss.data.images import Levels, decode_image, image_size, read_content
from wsss.data.parts import Part
from wsss.data.truth import MaskFolder, Truth

MAX_NAMED = 25
"""Classes that a summary names."""
UNKNOWN_DIGEST = b"\0" * DIGEST_BYTES
"""In a column of digests: the image was not scanned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One image and its tags.

    Attributes:
        name: unique in its set, "/"-separated and without a suffix; outputs are named after it.
        image: path of the image file; of a member of a shard ``SHARD.tar:KEY``.
        tags: sorted indices into the class names of the set, from 0; class ``k`` has class index ``k + 1``
            in label maps. Empty where the image is known to hold none of the classes.
        unknown: sorted indices of classes of which it is not known whether the image has them.
        size: (H, W) in pixels, upright; None where the image was not scanned.
        digest: ``wsss.data.facts.image_digest`` of the image's bytes; None where it was not scanned.
        part: where a member of a shard lies; None where the image is a file of its own.
        levels: values of black and white of 16-bit samples; None: of all 16 bits.
        bands: of a TIFF that are read, numbers from 1; empty: its colours.
    """

    name: str
    image: Path
    tags: tuple[int, ...]
    unknown: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    digest: str | None = None
    part: Part | None = None
    levels: Levels | None = None
    bands: tuple[int, ...] = ()

    def read(self) -> bytes:
        """The bytes of the image, as they are stored.

        Raises:
            UnreadableImage: they cannot be read.
        """
        return read_content(self.image, self.part)

    def decode(self) -> NDArray[np.uint8]:
        """The image as (H, W, 3) uint8 RGB, upright; see ``wsss.data.images.decode_image``.

        Raises:
            UnreadableImage: it cannot be read.
        """
        if self.bands:
            return read_bands(self.read(), self.image, self.bands, self.levels)
        return decode_image(self.read(), self.image, self.levels)

    def valid(self) -> NDArray[np.bool_] | None:
        """(H, W) where a TIFF has data; None where that is everywhere, and for other files.

        Raises:
            UnreadableImage: it cannot be read.
        """
        if self.part is not None or not self.image.name.lower().endswith(TIFF_SUFFIXES) or not has_rasterio():
            return None
        return valid_pixels(self.read(), self.image)

    def upright_size(self) -> tuple[int, int]:
        """(H, W) in pixels, upright; read from the image where it was not scanned.

        Raises:
            UnreadableImage: it cannot be read.
        """
        if self.size is None and self.bands:
            return band_bits(self.read(), self.image, self.bands)[0]
        return self.size or image_size(self.image, self.part)

    def stamp(self) -> Stamp:
        """What tells whether the image was changed: a member has its own length, and the times of its shard."""
        if self.part is None:
            return file_stamp(self.image)
        return file_stamp(self.part.file)._replace(length=self.part.length)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Records(Sequence[Record]):
    """Records in columns; each ``Record`` is made when it is asked for.

    Attributes:
        folder: the folder that ``paths`` start from.
        names: of the images.
        paths: of the image files, below ``folder``.
        tags: class indices of each image.
        unknown: those of the classes of which it is unknown whether the image has them.
        size_N2: int32 (H, W); 0 where it is unknown.
        digest_ND: uint8, D = DIGEST_BYTES; 0 where it is unknown.
        part_N3: int64, where members of shards lie: first byte, length, and how many characters of the path name the
            shard, 0 for a file of its own; None where all images are such files.
        bits: most bits of a sample that some image uses, 8 to 16; 8 where they were not scanned.
        levels: of all records.
        bands: of all records.
    """

    folder: Path
    names: Texts
    paths: Texts
    tags: Lists
    unknown: Lists
    size_N2: NDArray[np.int32]
    digest_ND: NDArray[np.uint8]
    part_N3: NDArray[np.int64] | None = None
    bits: int = 8
    levels: Levels | None = None
    bands: tuple[int, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record], folder: Path | None = None) -> Records:
        """The columns of some records.

        Args:
            records: in their order.
            folder: where all images lie; without it, or where some lie elsewhere, their common folder.
        """
        if isinstance(records, Records):
            return records
        listed = list(records)
        paths = [str(record.image) for record in listed]
        start = f"{folder}{os.sep}"
        if folder is None or not all(path.startswith(start) for path in paths):
            start = _common_start(
                [path if one.part is None else str(one.part.file) for one, path in zip(listed, paths, strict=True)]
            )
            folder = Path(start)
        below = Texts.of(path[len(start) :] for path in paths)
        return cls(
            folder=folder,
            names=_names([record.name for record in listed], below),
            paths=below,
            tags=Lists.of(record.tags for record in listed),
            unknown=Lists.of(record.unknown for record in listed),
            size_N2=np.array([record.size or (0, 0) for record in listed], np.int32).reshape(-1, 2),
            digest_ND=_digest_column(record.digest for record in listed),
            part_N3=_part_column([record.part for record in listed], len(start)),
            levels=listed[0].levels if listed else None,
            bands=listed[0].bands if listed else (),
        )

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]
        height, width = self.size_N2[index].tolist()
        digest = self.digest_ND[index].tobytes()
        path = self.paths[index]
        return Record(
            name=self.names[index],
            image=self.folder / path,
            tags=self.tags[index],
            unknown=self.unknown[index],
            size=(height, width) if height else None,
            digest=digest.hex() if digest != UNKNOWN_DIGEST else None,
            part=self._part(index, path),
            levels=self.levels,
            bands=self.bands,
        )

    def _part(self, index: int, path: str) -> Part | None:
        start, length, named = (0, 0, 0) if self.part_N3 is None else self.part_N3[index].tolist()
        return Part(self.folder / path[:named], start, length) if named else None

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether the records are equal, one by one; also to a tuple of them."""
        if isinstance(other, Records):
            return len(self) == len(other) and all(map(Record.__eq__, self, other))
        return tuple(self) == other

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def take(self, index_M: NDArray[np.int64]) -> Records:
        """The records at these positions, each from 0 to N - 1."""
        return Records(
            folder=self.folder,
            names=self.names.take(index_M),
            paths=self.paths.take(index_M),
            tags=self.tags.take(index_M),
            unknown=self.unknown.take(index_M),
            size_N2=self.size_N2[index_M],
            digest_ND=self.digest_ND[index_M],
            part_N3=None if self.part_N3 is None else self.part_N3[index_M],
            bits=self.bits,
            levels=self.levels,
            bands=self.bands,
        )

    def stamps(self) -> NDArray[np.int64]:
        """(N, 3) the stamp of each image; see ``Record.stamp``."""
        if self.part_N3 is None:
            return file_stamps(os.path.join(self.folder, path) for path in self.paths)  # noqa: PTH118 (speed)
        files = (path[:named] or path for path, named in zip(self.paths, self.part_N3[:, 2].tolist(), strict=True))
        stamp_of = cache(file_stamp)
        stamp_N3 = np.array([stamp_of(os.path.join(self.folder, file)) for file in files], np.int64).reshape(-1, 3)  # noqa: PTH118
        member_N = self.part_N3[:, 2] > 0
        stamp_N3[member_N, 0] = self.part_N3[member_N, 1]
        return stamp_N3


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedSet:
    """The records of one split, in a stable order.

    Attributes:
        root: the data folder.
        split: its name, for reports; "all" where a data set has no splits.
        classes: foreground class names; class index 0 is the background.
        records: in the order of the split file. Any sequence may be given; it is kept as ``Records``.
        mask_folder: where masks lie as PNG files, for scoring; None where there are none.
        annotations: where truths come from that are no folder of PNG files; None elsewhere.
        format: the name of the reader that read it; empty where none did.
        tags_source: the file or folder that the tags come from, as a path below ``root`` where it lies there; empty
            where there are no tags.
        of_objects: whether the tags are, at least in part, those of objects that annotators drew.
    """

    root: Path
    split: str
    classes: tuple[str, ...]
    records: Sequence[Record]
    mask_folder: Path | None = None
    annotations: Truth | None = None
    format: str = ""
    tags_source: str = ""
    of_objects: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Records.of(self.records, self.root))

    def __len__(self) -> int:
        return len(self.records)

    @property
    def columns(self) -> Records:
        """The records, typed as columns."""
        assert isinstance(self.records, Records)
        return self.records

    def present(self, record: Record) -> NDArray[np.bool_]:
        """Image-level label of a record: (K,) bool."""
        present_K = np.zeros(len(self.classes), dtype=np.bool_)
        present_K[list(record.tags)] = True
        return present_K

    def known(self, record: Record) -> NDArray[np.bool_]:
        """Of which classes it is known whether the image has them: (K,) bool."""
        known_K = np.ones(len(self.classes), dtype=np.bool_)
        known_K[list(record.unknown)] = False
        return known_K

    def has_unknown(self) -> bool:
        """Whether a class of a record is unknown."""
        return len(self.columns.unknown.values) > 0

    def images_by_class(self) -> dict[str, int]:
        """How many records have each class, in the order of the classes."""
        count_K = np.bincount(self.columns.tags.values, minlength=len(self.classes)).tolist()
        return {name: count_K[index] for index, name in enumerate(self.classes)}

    def summary(self) -> str:
        """One line: "train: 437 images, 6 classes: cat 90, cow 40, ..."; a name of several words in quotes."""
        counts = [f"{repr(name) if ' ' in name else name} {count}" for name, count in self.images_by_class().items()]
        more = len(counts) - MAX_NAMED
        named = ", ".join(counts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        none = int((self.columns.tags.lengths() == 0).sum())
        images, classes = counted(len(self), "image"), counted(len(self.classes), "class", "classes")
        rest = f"; {counted(none, 'image')} of no class" if none else ""
        return f"{self.split}: {images}, {classes}: {named}{rest}"

    def origin(self) -> str:
        """Where the set comes from: "photos (format folder, tags of tags.csv)"."""
        facts = [f"format {self.format}"] if self.format else []
        if self.of_objects:
            facts.append("tags of instance annotations" + (f" in {self.tags_source}" if self.tags_source else ""))
        elif self.tags_source:
            facts.append(f"tags of {self.tags_source}")
        return f"{self.root} ({', '.join(facts)})" if facts else str(self.root)

    def truth(self, record: Record) -> NDArray[np.uint8] | None:
        """The mask of a record, (H, W) uint8 class indices, or None where it has none. For scoring only.

        Raises:
            DataError: there is one that cannot be read.
        """
        source = self._truths()
        return None if source is None else source.read(record)

    def has_truth(self, record: Record) -> bool:
        """Whether a record has a mask; the mask is not opened. For scoring only."""
        source = self._truths()
        return source is not None and source.has(record)

    def mask_path(self, record: Record) -> Path | None:
        """The mask file of a record, or None where it has none. For scoring only."""
        return None if self.mask_folder is None else MaskFolder(self.mask_folder).path(record)

    def has_masks(self) -> bool:
        """Whether at least one record can be scored. For scoring only."""
        return any(self.has_truth(record) for record in self.records)

    def _truths(self) -> Truth | None:
        if self.annotations is not None or self.mask_folder is None:
            return self.annotations
        return MaskFolder(self.mask_folder)


def data_digest(tagged: TaggedSet) -> str:
    """SHA-256, in hexadecimal, of the names, the tags and the bytes of all images of a set, in their order.

    Images that were not scanned are read.

    Raises:
        UnreadableImage: one of these cannot be read.
    """
    digest = hashlib.sha256()
    for record in tagged.records:
        content = record.digest if record.digest is not None else image_digest(record.read())
        tags = f"{record.tags} ?{record.unknown}" if record.unknown else f"{record.tags}"
        digest.update(f"{record.name!r} {tags} {content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what is counted: "1 error", "2 errors", "3 classes"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def _common_start(paths: Sequence[str]) -> str:
    """The folders that all paths begin with, with the separator at its end; empty where there are none."""
    if not paths:
        return ""
    start = os.path.commonprefix([min(paths), max(paths)])  # noqa: RUF071 (cut at a separator below)
    return start[: start.rfind(os.sep) + 1]


def _names(names: Sequence[str], paths: Texts) -> Texts:
    """The column of names; parts of the paths where all names are, from the same byte on."""
    own = Texts.of(names)
    if not names or names[0] not in paths[0]:
        return own
    begin = len(paths[0][: paths[0].index(names[0])].encode("utf-8", "surrogatepass"))
    lengths_N = own.ends_N.astype(np.int64) - own.starts_N
    if (paths.starts_N + begin + lengths_N > paths.ends_N).any():
        return own
    parts = paths.inside(begin, lengths_N)
    return parts if parts == own else own


def _part_column(parts: Sequence[Part | None], start: int) -> NDArray[np.int64] | None:
    """``Records.part_N3`` of paths that lose their first ``start`` characters."""
    if not any(parts):
        return None
    rows = [(0, 0, 0) if part is None else (part.start, part.length, len(str(part.file)) - start) for part in parts]
    return np.array(rows, np.int64)


def _digest_column(digests: Iterable[str | None]) -> NDArray[np.uint8]:
    content = b"".join(UNKNOWN_DIGEST if digest is None else bytes.fromhex(digest) for digest in digests)
    return np.frombuffer(content, np.uint8).reshape(-1, DIGEST_BYTES)
