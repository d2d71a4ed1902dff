"""Open a data folder of any format as tagged records. No mask is opened unless tags are asked from masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.config import Reading, resolve
from wsss.data.findings import BadData, Finding, Note, refuse, telling
from wsss.data.images import IMAGE_SUFFIXES, sniffed_suffix, split_suffix
from wsss.data.masks import IGNORE_INDEX
from wsss.data.near_names import NearNames, tidy
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.listing import ListedImage, Listing
from wsss.data.readers.reader import Options
from wsss.data.readers.registry import READERS, find_reader, recognise
from wsss.data.readers.text import read_text
from wsss.data.records import Record, Records, TaggedSet
from wsss.data.truth import CLASS_INDICES, MaskFolder, MaskValues, Truth
from wsss.data.walking import conventional, is_file, is_folder, is_there
from wsss.errors import DataError, UsageError
from wsss.reporting import Reporter, Silent, first_few

CLASS_FILE = "classes.txt"
MAX_CLASSES = IGNORE_INDEX - 1
"""Label maps hold 8 bits: 0 is the background and 255 is ignored."""


def open_data(
    root: Path,
    *,
    split: str | None = None,
    reading: Reading | None = None,
    classes: Sequence[str] | None = None,
    need_tags: bool = True,
    note: Note = refuse,
    reporter: Reporter | None = None,
) -> TaggedSet:
    """Open one split of a data folder (data/README.md shows the formats).

    Args:
        root: the data folder.
        split: its name; may be left out where there is only one.
        reading: how it is read; None takes the defaults.
        classes: class names of a checkpoint; tags get their indices from these.
        need_tags: otherwise images may have none, as those of a test split.
        note: called with each fault; if it returns, what is at fault is left out.
        reporter: gets the progress of reading a large file.

    Raises:
        UsageError: the split is unknown, or the arguments contradict each other.
        DataError: the folder is at fault; the message says where and why.
    """
    root, reading = Path(root), reading or Reading()
    if reading.tags is not None and reading.tags_from in ("xml", "shapes", "masks"):
        raise UsageError(f"tags from {reading.tags} and from {reading.tags_from} at once", "leave out one of the two")
    reader = find_reader(root, reading)
    own = reading.classes or read_classes(root, reading.encoding, note=note)
    given = tuple(classes or ()) or None
    names = own if reading.tags_from == "masks" else own or given  # the indices of masks follow the data set alone
    options = Options(reading=reading, classes=names, need_tags=need_tags, note=note, reporter=reporter or Silent())
    source = reader.open(root, options)
    listing = source.listing(_choose_split(root, split, source.splits()))
    if own and given and listing.mask_folder and own != given[: len(own)]:
        raise _order_differs(root, own, given)
    known = checked_classes(given or listing.classes, listing.source, note)
    return TaggedSet(
        root=root,
        split=listing.split,
        classes=known,
        records=replace(
            _index_tags(listing, known, root, note, unlisted=reading.unlisted == "unknown"), bands=reading.bands
        ),
        mask_folder=listing.mask_folder,
        annotations=listing.annotations or _valued_masks(listing.mask_folder, reading),
        format=reader.name,
        tags_source=_below(listing.source, root),
        of_objects=listing.of_objects,
    )


def _valued_masks(folder: Path | None, reading: Reading) -> Truth | None:
    """The masks of a folder whose values are told (--mask-offset, --mask-ignore); None where they are class indices."""
    values = MaskValues(reading.mask_offset, reading.mask_ignore)
    return None if folder is None or values == CLASS_INDICES else MaskFolder(folder, values)


class Dataset:
    """A data folder of any format; `open_dataset` makes it. Splits are read when they are first asked for.

    What a reader guesses or leaves out is a warning of Python's ``warnings``, each said once.

    Args:
        root: the folder.
        reading: how it is read.

    Attributes:
        root: the folder.
        splits: names of the splits; "all" alone where the data set has none.

    Raises:
        DataError: the folder is at fault.
    """

    def __init__(self, root: Path, reading: Reading) -> None:
        self.root = root
        self._note = telling(lambda text: warnings.warn(text, stacklevel=2))
        self.splits = list_splits(root, reading, note=self._note)
        self._reading = reading
        self._opened: dict[str | None, TaggedSet] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Foreground class names; class index k is ``classes[k - 1]``."""
        return self.split(self.splits[0]).classes

    def split(self, name: str | None = None) -> TaggedSet:
        """One split; its name may be left out where there is only one.

        Raises:
            UsageError: there is no such split.
            DataError: the folder is at fault.
        """
        if name not in self._opened:
            self._opened[name] = open_data(
                self.root, split=name, reading=self._reading, need_tags=False, note=self._note
            )
        return self._opened[name]

    def records(self, split: str | None = None) -> Sequence[Record]:
        """The images of a split with their tags."""
        return self.split(split).records

    def truth(self, record: Record, split: str | None = None) -> NDArray[np.uint8] | None:
        """The mask of a record: (H, W) class indices, 255 where it is unknown; None without one. For scoring only.

        Without ``split``, the split that has a mask of this name.
        """
        for name in self.splits if split is None else (split,):
            truth_HW = self.split(name).truth(record)
            if truth_HW is not None:
                return truth_HW
        return None


def open_dataset(path: str | Path, **reading: Any) -> Dataset:
    """Open a data folder (data/README.md shows the formats).

    Args:
        path: the folder.
        reading: how it is read: the keys of ``wsss.reading.Reading``, such as ``format="coco"`` or ``tags_from``.

    Raises:
        UsageError: there is no such key, or its value is not allowed.
        DataError: the folder is at fault; the message says where and why.
    """
    flags = {f"data.{key}": value for key, value in reading.items()}
    return Dataset(Path(path), resolve(flags=flags).data)


def list_splits(
    root: Path, reading: Reading | None = None, *, note: Note = refuse, reporter: Reporter | None = None
) -> tuple[str, ...]:
    """Names of the splits of a data folder.

    Raises:
        DataError: the folder is at fault.
    """
    root = Path(root)
    options = Options(reading=reading or Reading(), note=note, reporter=reporter or Silent())
    return find_reader(root, reading).open(root, options).splits()


def open_unlabelled(path: Path, reading: Reading | None = None, *, note: Note = refuse) -> Records:
    """Records without tags: of one image, or of every image below a folder, sorted by name.

    Of a data folder these are its images, named as in its splits, without masks and saliency maps.

    Args:
        path: of the image or the folder.
        reading: how a data folder is read.
        note: called for what is left out; see ``find_images``.

    Raises:
        DataError: there is no such path, it is no image, or the folder holds none or cannot be listed.
    """
    path = Path(path)
    endings, bands = " ".join(IMAGE_SUFFIXES), () if reading is None else reading.bands
    if is_folder(path):
        found = _photographs(path, reading, note)
        if not found.files:
            raise DataError(f"{path}: no image in it (files ending in {endings})", f"ls -R {path}")
        records = (
            Record(name=name, image=found.folder / file, tags=(), part=found.parts.get(name))
            for name, file in found.files.items()
        )
        return replace(Records.of(records, path), bands=bands)
    if not is_there(path):
        raise DataError(f"{path}: no such image or folder", f"ls {path.parent}")
    name, suffix = split_suffix(path.name)
    if not suffix and not sniffed_suffix(path):
        raise DataError(f"{path}: not an image (files ending in {endings})", "convert it to PNG or JPEG")
    return replace(Records.of([Record(name=name, image=path, tags=())], path.parent), bands=bands)


def _below(source: Path, root: Path) -> str:
    """The path of a source of tags, from the root where it lies below it; empty where there is none."""
    if source == root:
        return ""
    return str(source.relative_to(root) if source.is_relative_to(root) else source)


def format_of(path: Path, reading: Reading | None = None) -> str:
    """The name of the reader that recognises a folder; empty for a plain folder and for a file."""
    return next(iter(recognise(path, reading)), "") if is_folder(path) else ""


def _photographs(folder: Path, reading: Reading | None, note: Note) -> Photographs:
    """The images of a data folder by its reader, or of a plain folder."""
    name = next(iter(recognise(folder, reading)), None)
    if name is None:
        return find_images(folder, note=note)
    return READERS[name].photographs(folder, note)


def _choose_split(root: Path, split: str | None, splits: tuple[str, ...]) -> str:
    """The split asked for, or the only one."""
    if split in splits:
        return split
    if split is None and len(splits) == 1:
        return splits[0]
    problem = f"no split '{split}'" if split is not None else "which split?"
    near = NearNames(splits).ask(split) if split is not None else ""
    raise UsageError(
        f"{root}: {problem}{near}; there are {', '.join(splits)}",
        f"name one: --train-split {splits[0]} in trainings, --split {splits[0]} elsewhere",
    )


def read_classes(root: Path, encoding: str = "utf-8", *, note: Note = refuse) -> tuple[str, ...] | None:
    """The class names in ``classes.txt`` of a data folder, one a line; None where there is no such file.

    Raises:
        DataError: see ``checked_classes``.
    """
    path = conventional(root, CLASS_FILE)
    if not is_file(path):
        return None
    names = tuple(tidy(line) for line in read_text(path, encoding).split("\n") if line.strip())
    return checked_classes(names, path, note)


def checked_classes(names: tuple[str, ...], source: Path, note: Note = refuse) -> tuple[str, ...]:
    """The class names, if label maps can hold them.

    Raises:
        DataError: there are none or too many; or ``note`` raises for a name that is listed twice, or the background.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        what, fix = f"class names listed twice ({first_few(twice)})", f"keep each name once in {source}"
        note(BadData.at("class-twice", source, what, fix))
    if any(name.lower() == "background" for name in names):
        what = "'background' is a class there, but it always has index 0 and is never listed"
        note(BadData.at("class-background", source, what, f"take it out of {source}"))
    if not 1 <= len(names) <= MAX_CLASSES:
        what = f"{len(names)} classes; label maps hold 1 to {MAX_CLASSES}"
        raise BadData.at("class-count", source, what, f"correct {source}")
    return names


def _index_tags(listing: Listing, classes: tuple[str, ...], root: Path, note: Note, *, unlisted: bool) -> Records:
    """Records with class indices for labels; unknown labels are left out where ``note`` returns.

    With ``unlisted``, every class that an image neither has nor is said not to have is unknown.

    Raises:
        DataError: labels that are no class; each is named, with the nearest class.
    """
    index = {tidy(name): k for k, name in enumerate(classes)}
    unknown = [(label, image) for image in listing.images for label in image.labels if tidy(label) not in index]
    if unknown:
        note(_unknown_tags(unknown, classes, listing.source, root / CLASS_FILE))

    def indices(labels: Iterable[str]) -> set[int]:
        return {index[tidy(label)] for label in labels if tidy(label) in index}

    def record(image: ListedImage) -> Record:
        tags = indices(image.labels)
        unknown = set(index.values()) - indices(image.absent) if unlisted else indices(image.unknown)
        return Record(
            name=image.name,
            image=image.image,
            tags=tuple(sorted(tags)),
            unknown=tuple(sorted(unknown - tags)),
            part=image.part,
        )

    return Records.of(map(record, listing.images), root)


def _unknown_tags(
    found: list[tuple[str, ListedImage]], classes: tuple[str, ...], source: Path, class_file: Path
) -> BadData:
    """The error for labels that are no class, each with an image that has it."""
    unknown = dict(found)
    near = NearNames(classes)
    meant = {label: f"'{label}'{near.ask(label)}" for label in unknown}
    named = [f"{meant[label]} of {unknown[label].name}" for label in sorted(unknown)]
    return BadData(
        f"{source}: unknown tags: {first_few(named, 5)}; the classes are {first_few([*classes], 20)}",
        f"correct the tags, or list every class in {class_file} (a model keeps those it was trained on)",
        [Finding("tag-unknown", image.place, f"unknown tag {meant[label]} of {image.name}") for label, image in found],
    )


def _order_differs(root: Path, own: tuple[str, ...], given: tuple[str, ...]) -> DataError:
    """The error for masks and a model whose classes have different indices: every score would be wrong."""
    return DataError(
        f"{root / CLASS_FILE}: the masks' classes are {first_few([*own], 20)}, the model's are"
        f" {first_few([*given], 20)}",
        "use a model trained with this classes.txt, or move the mask folder away if nothing is scored",
    )
