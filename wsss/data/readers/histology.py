"""Histology patches whose names end in their tags: ``9000001-2300-27920-[1 0 0 1].png``.

Images for scoring lie in ``img`` beside ``mask``; their names have no tags.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.config import Reading
from wsss.data.findings import BadData, Finding, Note, Place, refuse
from wsss.data.images import split_suffix
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.listing import Listing
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.tag_table import find_tag_file
from wsss.data.readers.voc import mask_labels
from wsss.data.records import Record
from wsss.data.truth import MaskValues
from wsss.data.walking import is_file
from wsss.reporting import first_few

DIGITS = re.compile(r"\[([01](?:[ ,_]{0,2}[01])*)\]$")
"""The end of a name, without its suffix: a 0 or 1 for each class."""
IMAGES = frozenset({"img", "image", "images"})
MASK = "mask"
NOT_IMAGES = frozenset({MASK, "masks", "background-mask", "background_mask", "bg"})
"""Folders, at any depth, whose files are no photographs."""
SAMPLED = 500
"""Images whose names are looked at to recognise the format."""
KNOWN = {3: ("tumour,stroma,normal  # WSSS4LUAD",), 4: ("TE,NEC,LYM,TAS  # LUAD-HistoSeg", "TUM,STR,LYM,NEC  # BCSS")}
"""Classes of known data sets by their number, for messages."""


@dataclass(frozen=True, slots=True)
class MasksBeside:
    """A ``Truth``: of the image ``SPLIT/img/NAME`` the mask ``SPLIT/mask/NAME.png``."""

    root: Path
    values: MaskValues

    def path(self, name: str) -> Path | None:
        """The mask file of an image by its name, or None where there is none."""
        *folders, last = name.split("/")
        if not folders or folders[-1].lower() not in IMAGES:
            return None
        path = self.root.joinpath(*folders[:-1], MASK, f"{last}.png")
        return path if is_file(path) else None

    def has(self, record: Record) -> bool:
        """Whether there is a mask file."""
        return self.path(record.name) is not None

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The class indices of the mask file."""
        path = self.path(record.name)
        return None if path is None else self.values.read(path)


def _sniff(root: Path, reading: Reading) -> str | None:
    if reading.tags is not None or find_tag_file(root) is not None:  # tags are told apart from the names
        return None
    found = [DIGITS.search(split_suffix(name)[0]) for name in islice(_image_names(root), SAMPLED)]
    ends = [match[1] for match in found if match is not None]
    if all(len(end) == 1 for end in ends) and (len(ends) < len(found) or len(set(ends)) < 2):
        return None  # "photo[1].jpg" is the second download of a photo
    return f"names that end in tags, such as [{ends[0]}]" if ends else None


def _image_names(root: Path) -> Iterator[str]:
    """Names of the image files below a folder, without those of masks."""
    for _, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name[0] != "." and name.lower() not in NOT_IMAGES)
        yield from (name for name in files if name[0] != "." and split_suffix(name)[1])


@dataclass(frozen=True, slots=True)
class HistologySource:
    """A folder of patches."""

    root: Path
    photographs: Photographs
    options: Options

    def splits(self) -> tuple[str, ...]:
        """The folders of the patches, sorted."""
        return self._opened(()).splits()

    def listing(self, split: str) -> Listing:
        """One split.

        Raises:
            DataError: the classes are not told, or names have another number of digits.
        """
        return self._opened(_checked_classes(self.root, self.photographs, self.options)).listing(split)

    def _opened(self, classes: tuple[str, ...]) -> AnnotatedSource:
        reading = self.options.reading
        truth = MasksBeside(self.root, MaskValues(reading.mask_offset, reading.mask_ignore))
        return AnnotatedSource(
            options=self.options,
            photographs=self.photographs,
            images=tuple(self._images(classes, truth)),
            declared=classes,
            source=self.root,
            finder=ImageFinder(self.photographs),
            truth=truth,
        )

    def _images(self, classes: tuple[str, ...], truth: MasksBeside) -> Iterator[AnnotatedImage]:
        """Each image with the tags of its name or, only where that is asked, of its mask."""
        from_masks = bool(classes) and self.options.reading.tags_from == "masks"
        for name, file in self.photographs.files.items():
            labels = _name_labels(name, classes)
            mask = truth.path(name) if labels is None and from_masks else None
            try:
                labels = labels if mask is None else mask_labels(mask, truth.values, classes)
            except BadData as error:
                self.options.note(error)
                continue
            place = Place(self.root / file)
            yield AnnotatedImage(written=file, split=_split(file), labels=labels, place=place, found=name)


def _open(root: Path, options: Options) -> HistologySource:
    return HistologySource(root, _photographs(root, options.note), options)


def _checked_classes(root: Path, photographs: Photographs, options: Options) -> tuple[str, ...]:
    """The classes, of which each name has a digit.

    Raises:
        DataError: they are not told, or names have other numbers of digits; with each of these names.
    """
    digits = {name: len(end) for name in photographs.files if (end := _digits(name)) is not None}
    counts = sorted(set(digits.values()))
    if options.classes is None:
        known = KNOWN.get(counts[0] if counts else 0, (",".join("ABCDEFGH"[: counts[0] if counts else 2]),))
        what = f"names tell {first_few([str(count) for count in counts])} tags, but not of which classes"
        raise BadData.at("tags-none", root, what, f"--classes {'   or   --classes '.join(known)}")
    wrong = [name for name, count in digits.items() if count != len(options.classes)]
    if wrong:
        what = f"names with another number of digits than the {len(options.classes)} classes ({first_few(wrong)})"
        fix = "give --classes a name for each digit; all names need the same number of digits"
        findings = [
            Finding("tag-digits", Place(root / photographs.files[name]), f"{digits[name]} digits") for name in wrong
        ]
        options.note(BadData(f"{root}: {len(wrong)} {what}", fix, findings))
    return options.classes


def _digits(name: str) -> str | None:
    """The digits at the end of a name; None where there are none."""
    match = DIGITS.search(name)
    return None if match is None else re.sub("[^01]", "", match[1])


def _name_labels(name: str, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The classes whose digit is 1; None without digits, or with another number of them."""
    digits = _digits(name)
    if digits is None or len(digits) != len(classes):
        return None
    return tuple(label for label, digit in zip(classes, digits, strict=True) if digit == "1")


def _split(file: str) -> str:
    """The first folder, or the one in a first folder called images."""
    folders = file.split("/")[:-1]
    return next((part for part in folders[:2] if part.lower() not in IMAGES), ONLY_SPLIT)


def _photographs(root: Path, note: Note = refuse) -> Photographs:
    found = find_images(root, note=note)
    files = {name: file for name, file in found.files.items() if NOT_IMAGES.isdisjoint(file.lower().split("/")[:-1])}
    return replace(found, files=files)


HISTOLOGY = Reader(
    name="histology",
    looks_for="image names that end in tags, such as [1 0 0 1]",
    sniff=_sniff,
    open=_open,
    photographs=_photographs,
    lists_all=True,
    wins_over=("class-folders",),  # folders of splits may have any name
)
