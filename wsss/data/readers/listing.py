"""What a reader gives: the images of one split with their labels as words, and the errors that all readers share.

``wsss.data.dataset`` turns the words into class indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsss.data.findings import BadData, Finding, Place
from wsss.data.truth import Truth
from wsss.reporting import first_few


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedImage:
    """One image of a split, its labels still words; ``place`` is the line or file that they come from."""

    name: str
    image: Path
    labels: tuple[str, ...]
    place: Place


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
    """

    split: str
    images: tuple[ListedImage, ...]
    classes: tuple[str, ...]
    source: Path
    mask_folder: Path | None
    annotations: Truth | None = None


def untagged_images(names: list[str], source: Path) -> BadData:
    """The error for images that have no tags."""
    return BadData(
        f"{source}: no tags for {len(names)} images ({first_few(names)})",
        "give each of them a line (an empty label field means none of the classes), or move them away",
        [Finding("image-untagged", Place(source), f"no tags for {name}") for name in names],
    )


def missing_images(names: Mapping[str, Place], source: Path, folder: Path) -> BadData:
    """The error for images that a list names, each at its place, and that are not in the folder."""
    return BadData(
        f"{source}: {len(names)} listed images are not in {folder} ({first_few(list(names))})",
        f"put them there, or take their lines out of {source}",
        [Finding("image-missing", place, f"{name} is not in {folder}") for name, place in names.items()],
    )
