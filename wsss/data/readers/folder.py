"""The folder format: any tree of images and one table of their tags."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from wsss.config import Reading
from wsss.data.findings import BadData, Note, refuse
from wsss.data.images import split_suffix
from wsss.data.near_names import same_by_sight
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.json_fields import is_foreign
from wsss.data.readers.listing import ListedImage, Listing, alike_splits, missing_images, renamed, untagged_images
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.table import is_general_table
from wsss.data.readers.tag_table import TAG_FILES, TagFile, TagLine, find_tag_file, read_tag_file
from wsss.data.records import counted
from wsss.data.walking import conventional, is_file, is_folder, names_in
from wsss.errors import UsageError
from wsss.reporting import first_few

NOT_IMAGES = ("masks", "Saliency")
"""Folders of PNG files that are no photographs."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder with a table of tags, which is read once."""

    root: Path
    table: TagFile
    options: Options

    def splits(self) -> tuple[str, ...]:
        """Names of the splits of the table, in order of appearance."""
        names = self.table.splits()
        for error in alike_splits(names, self.table.path):
            self.options.note(error)
        return names

    def listing(self, split: str) -> Listing:
        """One split; see ``read_folder``."""
        return read_folder(self.root, self.table, split, self.options.classes, note=self.options.note)


def open_tag_file(
    root: Path, path: Path, known: Collection[str] = (), *, encoding: str = "utf-8", note: Note = refuse
) -> TagFile:
    """Read the table of a folder data set; image paths may start with ``images/`` or below it."""
    base = _image_folder(root)
    return read_tag_file(path, prefix=base.name if base != root else "", known=known, encoding=encoding, note=note)


def read_folder(
    root: Path, table: TagFile, split: str, names: tuple[str, ...] | None = None, *, note: Note = refuse
) -> Listing:
    """List one split of a folder data set.

    Args:
        root: the data folder.
        table: its tags.
        split: one of ``table.splits()``.
        names: class names, where they are given; otherwise all labels of the table, sorted.
        note: called with each fault; if it returns, missing images are left out.

    Raises:
        DataError: images on disk have no line, or listed images are missing.
    """
    photographs = _photographs(root, note)
    base, files = photographs.folder, photographs.files
    same = same_by_sight(table.lines, files)
    if same:
        note(renamed(same, table.path))
    tagged = {same.get(name, name) for name in table.lines}
    untagged = [name for name in files if name not in tagged]
    if untagged:
        note(untagged_images(untagged, table.path, (name for name in tagged if name not in files)))
    lines = {same.get(name, name): line for name, line in table.lines.items() if line.split == split}
    missing = {
        line.name + line.suffix: line.place for name, line in lines.items() if not _matches(line, files.get(name))
    }
    if missing:
        note(missing_images(missing, table.path, photographs))
    masks = conventional(root, "masks")
    return Listing(
        split=split,
        images=tuple(
            ListedImage(name=name, image=base / files[name], labels=line.labels, place=line.place)
            for name, line in lines.items()
            if line.name + line.suffix not in missing
        ),
        classes=names or table.classes(note),
        source=table.path,
        mask_folder=masks if is_folder(masks) else None,
    )


def _sniff(root: Path, reading: Reading) -> str | None:
    table = reading.tags or find_tag_file(root)
    if table is not None and (is_general_table(table, reading) or (reading.tags is not None and is_foreign(table))):
        return None  # the reader "table" reads it, or that of an annotation program
    return None if table is None else f"a table of tags, {table.name}"


def _open(root: Path, options: Options) -> FolderSource:
    """The folder with its table read.

    Raises:
        UsageError: tags are asked from where this format has none.
        DataError: the table is missing or at fault.
    """
    reading = options.reading
    if reading.tags_from in ("xml", "masks"):
        raise UsageError(
            f"{root}: tags from {reading.tags_from} need the format of PASCAL VOC; a folder has its table of tags",
            "take the tags from the file",
        )
    path = reading.tags or find_tag_file(root, note=options.note) or root / TAG_FILES[0]
    known, encoding = options.classes or (), reading.encoding
    return FolderSource(root, open_tag_file(root, path, known, encoding=encoding, note=options.note), options)


def _photographs(root: Path, note: Note = refuse) -> Photographs:
    base = _image_folder(root)
    skip = [conventional(root, name).name for name in NOT_IMAGES] if base == root else []
    if base != root and (beside := [name for name in names_in(root) if split_suffix(name)[1] and is_file(root / name)]):
        count = counted(len(beside), "image")
        what = (
            f"{count} beside {base.name}/ not read ({first_few(beside)}): where there is such a folder, only it is read"
        )
        note(BadData.at("file-ignored", root / beside[0], what, f"mv them into {base}"))
    return find_images(base, skip, note=note)


def _image_folder(root: Path) -> Path:
    """Where the images of a folder data set lie: ``root/images`` where there is one, else ``root``."""
    images = conventional(root, "images")
    return images if is_folder(images) else root


def _matches(line: TagLine, file: str | None) -> bool:
    """Whether a line means this file: the suffix may be left out, or written in another case."""
    return file is not None and file.lower().endswith(line.suffix.lower())


FOLDER = Reader(
    name="folder",
    looks_for=" or ".join(TAG_FILES),
    sniff=_sniff,
    open=_open,
    photographs=_photographs,
    lists_all=True,
)
