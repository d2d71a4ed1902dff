"""The splits of YOLO's data.yaml: folders, or text files that list images, often of another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wsss.data.findings import BadData, Finding, Note, Place
from wsss.data.photographs import Photographs
from wsss.data.readers.annotated import ONLY_SPLIT
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.text import read_text
from wsss.data.walking import is_file, is_folder
from wsss.reporting import first_few

KEYS = ("train", "val", "test")


class SplitImage(NamedTuple):
    """An image of a split: its file below the data folder, or None where a list names one that is not there."""

    split: str
    written: str
    file: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class _Named:
    """What data.yaml names under one key: folders and lists below the data folder."""

    key: str
    folders: tuple[str, ...]
    lists: tuple[str, ...]

    @property
    def split(self) -> str:
        """The key; where it is one folder, the name of that folder (``images/val2017``, ``valid/images``)."""
        parts = self.folders[0].split("/") if len(self.folders) == 1 and not self.lists else []
        return next((part for part in reversed(parts) if part != "images"), ONLY_SPLIT if parts else self.key)


def split_images(
    root: Path, yaml: Path, content: Mapping[str, Any], photographs: Photographs, note: Note
) -> Iterator[SplitImage]:
    """The images of all splits. Those that data.yaml does not name are in the split of their folder.

    Args:
        root: the data folder.
        yaml: data.yaml.
        content: of data.yaml.
        photographs: all images below the root.
        note: called where a folder or list is not there, and where two splits are one folder.
    """
    named = [_named(root, yaml, key, content, note) for key in KEYS]
    _say_same(named, yaml, note)
    listed = dict[str, None]()
    finder = ImageFinder(photographs)
    for one in named:
        for text in one.lists:
            for image in _lines(root / text, one.split, text.rpartition("/")[0], photographs, finder):
                listed[image.file or ""] = None
                yield image
    given = [(f"{folder}/", one.split) for one in named for folder in one.folders]
    left_out = []
    for file in photographs.files.values():
        splits = dict.fromkeys(split for folder, split in given if file.startswith(folder))
        if not splits and any(one.lists for one in named):
            left_out += [file] * (file not in listed)
            continue
        split = _by_folder(file)
        for name in splits or ([] if split is None else [split]):
            yield SplitImage(name, file, file, Place(root / file))
    if left_out:
        what = f"{len(left_out)} images are in no list and are left out ({first_few(left_out)})"
        findings = [Finding("image-unlabelled", Place(yaml), f"{file} is in no list") for file in left_out]
        note(BadData(f"{yaml}: {what}", "add them to a list that data.yaml names", findings))


def _by_folder(file: str) -> str | None:
    """The split of an image in ``SPLIT/images`` or ``images/SPLIT``; None outside a folder ``images``."""
    *parts, _ = file.split("/")
    if "images" not in parts:
        return None
    at = parts.index("images")
    return parts[at - 1] if at else parts[1] if len(parts) > 1 else ONLY_SPLIT


def _named(root: Path, yaml: Path, key: str, content: Mapping[str, Any], note: Note) -> _Named:
    """What a key names and is there; what is not is noted."""
    value, above = content.get(key), _parts(content.get("path"))
    folders: list[str] = []
    lists: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        parts = _parts(one)
        if not parts:
            continue
        there = is_file if parts[-1].endswith(".txt") else is_folder
        starts = [*_tails([*above, *parts]), *_tails(parts)]
        found = next((start for start in starts if there(root / start)), None)
        if found is None:
            what = f"names {'/'.join(parts)}, which is not there"
            note(BadData(f"{yaml}: {what}", f"ls {root}", [Finding("folder-absent", Place(yaml), what)]))
        else:
            (lists if there is is_file else folders).append(found)
    return _Named(key, tuple(folders), tuple(lists))


def _parts(path: Any) -> list[str]:
    """Parts of a written path without those that lead up; empty where it is none."""
    text = path.replace("\\", "/") if isinstance(path, str) else ""
    return [part for part in text.split("/") if part.strip() not in ("", ".", "..")]


def _tails(parts: list[str]) -> list[str]:
    """A path, and the same with fewer folders before it."""
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _lines(path: Path, split: str, base: str, photographs: Photographs, finder: ImageFinder) -> Iterator[SplitImage]:
    """The images of a list, one path a line."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if written := line.strip():
            place = Place(path, line=number)
            name = finder.find(written, place, split=split, base=f"{base}/" if base else "")
            yield SplitImage(split, written, None if name is None else photographs.files[name], place)


def _say_same(named: list[_Named], yaml: Path, note: Note) -> None:
    """Note two keys that name one folder or list."""
    first: dict[str, str] = {}
    for one in named:
        for place in (*one.folders, *one.lists):
            other = first.setdefault(place, one.key)
            if other != one.key:
                what = f"'{one.key}' names {place} as '{other}' does: these images are not kept apart"
                fix = f"name other images under '{one.key}', or leave it out"
                note(BadData(f"{yaml}: {what}", fix, [Finding("split-overlap", Place(yaml), what)]))
