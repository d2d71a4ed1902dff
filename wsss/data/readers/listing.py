"""What a reader gives: the images of one split with their labels as words, and the errors that all readers share.

``wsss.data.dataset`` turns the words into class indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from wsss.data.findings import BadData, Finding, Place
from wsss.data.images import split_suffix
from wsss.data.near_names import NearNames, by_sight
from wsss.data.parts import Part
from wsss.data.photographs import CONVERT, Photographs
from wsss.data.truth import Truth
from wsss.data.walking import is_file
from wsss.reporting import first_few


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedImage:
    """One image of a split, its labels still words; ``place`` is the line or file that they come from.

    ``absent`` are labels of classes that the file says the image does not have, ``unknown`` those of classes that it
    leaves open. ``part`` is where a member of a shard lies.
    """

    name: str
    image: Path
    labels: tuple[str, ...]
    place: Place
    unknown: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    part: Part | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """One split as its files list it.

    Attributes:
        split: its name.
        images: in the order of the list.
        classes: the class names, given, or taken from where the labels come from.
        source: the file or folder that the labels come from, for messages.
        mask_folder: where masks lie as PNG files, or None.
        annotations: what gives the masks where they are no PNG files (polygons, for example), or None.
        of_objects: whether the labels are, at least in part, those of objects that annotators drew.
    """

    split: str
    images: tuple[ListedImage, ...]
    classes: tuple[str, ...]
    source: Path
    mask_folder: Path | None
    annotations: Truth | None = None
    of_objects: bool = False


def untagged_images(names: Sequence[str], source: Path, tagged: Iterable[str] = ()) -> BadData:
    """The error for images that have no tags.

    Args:
        names: of these images.
        source: the file or folder that tags come from.
        tagged: names there that are no image, among which the nearest are sought.
    """
    near = NearNames(tagged)
    hints = {name: near.ask(name, "there are tags for '{}'") for name in names}
    first = next((name for name in names if hints[name]), None)
    example = f"; {first}{hints[first]}" if first is not None else ""
    return BadData(
        f"{source}: no tags for {len(names)} images ({first_few(names)}){example}",
        "give each of them a line (an empty label field means none of the classes), or move them away"
        if first is None
        else f"write the names in {source} as those of the files, or rename the files",
        [Finding("image-untagged", Place(source), f"no tags for {name}{hints[name]}") for name in names],
    )


def missing_images(names: Mapping[str, Place], source: Path, photographs: Photographs) -> BadData:
    """The error for images that a list names, each at its place, and that are not in the folder.

    Args:
        names: as the list writes them, with a suffix where it gives one.
        source: the list.
        photographs: the images that are there, among which the nearest names are sought.
    """
    near = NearNames(photographs.files), NearNames(photographs.files.values())
    hints = {name: _hint(name, source, photographs, near) for name in names}
    first = next((name for name in names if hints[name].why), None)
    example = f"; {first}{hints[first].why}" if first is not None else ""
    return BadData(
        f"{source}: {len(names)} listed images are not in {photographs.folder} ({first_few(list(names))}){example}",
        f"put them there, or take their lines out of {source}" if first is None else hints[first].fix,
        [
            Finding("image-missing", place, f"{name} is not in {photographs.folder}{hints[name].why}")
            for name, place in names.items()
        ],
    )


class _Hint(NamedTuple):
    """Why a listed image may be missing, in brackets, and what to do; both empty where nothing is known."""

    why: str
    fix: str


def _hint(name: str, source: Path, photographs: Photographs, near: tuple[NearNames, NearNames]) -> _Hint:
    """What lies there instead of a listed image."""
    above = photographs.folder.parent
    if photographs.folder.name.lower() == "images" and is_file(above / name):
        return _Hint(f" (it lies in {above})", f"mv {above / name} {photographs.folder}")
    left_out = photographs.tree.why_left_out(name)
    if left_out is not None:
        fix = f"take its line out of {source}, or move the image to another folder"
        return _Hint(f" ({left_out[0]} is left out: {left_out[1]})", fix)
    stem, ending = split_suffix(name)
    other = photographs.files.get(stem)
    if name in photographs.others and other is not None and ending:
        return _Hint(f" (it is there, but {other} has the same name)", f"rename one of the two, in {source} as well")
    if name in photographs.others:
        ending = f"ending in {PurePosixPath(name).suffix}" if PurePosixPath(name).suffix else "without an ending"
        return _Hint(f" (it is there, but files {ending} are not read)", CONVERT)
    meant = near[bool(split_suffix(name)[1])].ask(name)
    return _Hint(meant, f"write the names in {source} as those of the files, or rename the files" if meant else "")


def renamed(images: Mapping[str, str], source: Path) -> BadData:
    """The warning for names of a list that look the same as those of files, which were taken."""
    count = "1 name looks" if len(images) == 1 else f"{len(images)} names look"
    what = "looks the same but differs in its Unicode form, in spaces or in characters that cannot be seen"
    return BadData(
        f"{source}: {count} the same as those of files but differ ({first_few(list(images))}); these files are taken",
        f"write the names in {source} as those of the files",
        [
            Finding("name-form", Place(source), f"{file!a} is taken for {name!a}, which {what}")
            for name, file in images.items()
        ],
    )


def alike_splits(names: Iterable[str], source: Path) -> Iterator[BadData]:
    """Warnings about splits whose names differ in case, spaces or punctuation only: the images of one are left out."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault("".join(letter for letter in by_sight(name).casefold() if letter.isalnum()), name)
        if other != name:
            what = f"{other!r} and {name!r} are two splits, but may be meant to be one"
            yield BadData.at("split-alike", source, what, f"write one of the two in all lines of {source}")
