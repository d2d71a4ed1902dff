"""The folder layout: any tree of images and one table of their tags.

Labels stay words in this module; ``wsss.data.dataset`` gives them their indices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsss.data.findings import BadData, Finding, Note, Place, refuse
from wsss.data.images import list_images
from wsss.data.readers.tag_table import TagFile, TagLine, read_tag_file

NOT_IMAGES = ("masks", "Saliency")
"""Folders of PNG files that are no photographs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedImage:
    """One image of a split, its labels still words; ``place`` is where they come from."""

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
        classes: the class names, told, or taken from where the labels come from.
        source: the file or folder the labels come from, for messages.
        mask_folder: where masks lie, or None.
    """

    split: str
    images: tuple[ListedImage, ...]
    classes: tuple[str, ...]
    source: Path
    mask_folder: Path | None


def image_folder(root: Path) -> Path:
    """Where the images of a folder data set lie: ``root/images`` where there is one, else ``root``."""
    return root / "images" if (root / "images").is_dir() else root


def open_tag_file(root: Path, path: Path, known: Collection[str] = (), *, note: Note = refuse) -> TagFile:
    """Read the table of a folder data set; image paths may start with ``images/`` or below it."""
    return read_tag_file(path, prefix="images" if image_folder(root) != root else "", known=known, note=note)


def read_folder(
    root: Path, table: TagFile, split: str, names: tuple[str, ...] | None = None, *, note: Note = refuse
) -> Listing:
    """List one split of a folder data set.

    Args:
        root: the data folder.
        table: its tags.
        split: one of ``table.splits()``.
        names: class names, where they are told; else all labels of the table, sorted.
        note: told of faults; where it goes on, missing images are left out.

    Raises:
        DataError: images on disk without a line, or listed images that are missing.
    """
    base = image_folder(root)
    files = folder_images(root, note=note)
    untagged = [name for name in files if name not in table.lines]
    if untagged:
        note(untagged_images(untagged, table.path))
    lines = [line for line in table.lines.values() if line.split == split]
    missing = {line.name + line.suffix: line.place for line in lines if not matches(line, files.get(line.name))}
    if missing:
        note(missing_images(missing, table.path, base))
    return Listing(
        split=split,
        images=tuple(
            ListedImage(name=line.name, image=base / files[line.name], labels=line.labels, place=line.place)
            for line in lines
            if line.name + line.suffix not in missing
        ),
        classes=names or table.classes(note),
        source=table.path,
        mask_folder=root / "masks" if (root / "masks").is_dir() else None,
    )


def folder_images(root: Path, *, note: Note = refuse) -> dict[str, str]:
    """Every image of a folder data set, as ``list_images`` gives them below ``image_folder(root)``."""
    base = image_folder(root)
    return list_images(base, skip=NOT_IMAGES if base == root else (), note=note)


def matches(line: TagLine, file: str | None) -> bool:
    """Whether a line means this file: the suffix may be left out, or written in another case."""
    return file is not None and file.lower().endswith(line.suffix.lower())


def untagged_images(names: list[str], source: Path) -> BadData:
    """Images whose classes nobody has told."""
    return BadData(
        f"{source}: no tags for {len(names)} images ({first_few(names)})",
        "give each of them a line (an empty label field means none of the classes), or move them away",
        [Finding("image-untagged", Place(source), f"no tags for {name}") for name in names],
    )


def missing_images(names: Mapping[str, Place], source: Path, folder: Path) -> BadData:
    """Images that a list names, each at its place, and the disk lacks."""
    return BadData(
        f"{source}: {len(names)} listed images are not in {folder} ({first_few(list(names))})",
        f"put them there, or take their lines out of {source}",
        [Finding("image-missing", place, f"{name} is not in {folder}") for name, place in names.items()],
    )


def first_few(names: list[str], limit: int = 3) -> str:
    """The first names of a long list."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
