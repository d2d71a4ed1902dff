"""YOLO segmentation: a text file of numbers for each image, and data.yaml with the names of the classes.

A line is a class id and an outline x y x y ..., or a box (centre x, centre y, width, height), as shares of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.areas import Area, outlined
from wsss.data.drawn import Shape
from wsss.data.findings import BadData, Finding, Note, Place
from wsss.data.images import split_suffix
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import AnnotatedImage, AnnotatedSource
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.text import read_text
from wsss.data.readers.yolo_splits import SplitImage, split_images
from wsss.data.walking import is_file, is_folder
from wsss.errors import DataError, UsageError
from wsss.plain_yaml import read_yaml

YAMLS = ("data.yaml", "data.yml", "dataset.yaml")
MOST_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a label file: the class id, and its numbers; four of them are a box."""

    number: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Shapes:
    """The drawn objects of an image, given the classes; None where one is a box."""

    lines: tuple[_Line, ...]
    names: dict[int, str]

    def __call__(self, rules: ClassRules) -> tuple[Shape, ...] | None:
        if any(len(line.values) == 4 for line in self.lines):
            return None
        return tuple(Shape(rules.index(self.names[line.number]), partial(_area, line.values)) for line in self.lines)


def _area(values: Sequence[float], size: tuple[int, int]) -> Area:
    """The pixels inside an outline of shares, cut at the edges of the image."""
    height, width = size
    cut = [min(max(value, 0.0), 1.0) for value in values]
    return outlined([[value * (height if n % 2 else width) for n, value in enumerate(cut)]], size)


def _yaml_of(root: Path, reading: Reading) -> Path | None:
    """The file that --tags names, or data.yaml, or the only other YAML file beside the folders."""
    if reading.tags is not None:
        return reading.tags if reading.tags.suffix.lower() in (".yaml", ".yml") and is_file(reading.tags) else None
    usual = next((root / name for name in YAMLS if is_file(root / name)), None)
    if usual is not None:
        return usual
    others = sorted((*root.glob("*.yaml"), *root.glob("*.yml")))
    return others[0] if len(others) == 1 else None


def _label_folders(root: Path) -> list[str]:
    """Folders of label files below the root: labels, labels/SPLIT, SPLIT/labels."""
    found = []
    if is_folder(root / "labels"):
        inner = sorted(path.name for path in (root / "labels").iterdir() if path.is_dir())
        found += [f"labels/{name}" for name in inner] or ["labels"]
    return found + [f"{path.parent.name}/labels" for path in sorted(root.glob("*/labels")) if path.is_dir()]


def _sniff(root: Path, reading: Reading) -> str | None:
    path, folders = _yaml_of(root, reading), _label_folders(root)
    if path is None or not folders:
        return None
    try:
        content = read_yaml(path)
    except UsageError:
        return None
    return f"YOLO labels, {path.name} and {folders[0]}" if isinstance(content, dict) and "names" in content else None


def _names(content: Any, path: Path) -> dict[int, str]:
    """Class names by id.

    Raises:
        BadData: ``names`` is neither a list nor a dictionary from numbers to names.
    """
    names = content.get("names") if isinstance(content, dict) else None
    pairs = (
        list(enumerate(names)) if isinstance(names, list) else list(names.items()) if isinstance(names, dict) else []
    )
    found: dict[int, str] = {}
    for key, name in pairs[:MOST_CLASSES]:
        number = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 9 else key
        is_word = isinstance(name, str | int | float) and not isinstance(name, bool) and str(name).strip()
        if not isinstance(number, int) or isinstance(number, bool) or number < 0 or number in found or not is_word:
            if isinstance(name, bool):
                what = f"'names' has {name} where a name is expected: YAML reads yes, no, on and off so"
                raise BadData.at("table-format", path, what, f"write it in quotes: '{'yes' if name else 'no'}'")
            what = f"'names' has the entry {str(key)[:40]}: {str(name)[:40]}"
            raise BadData.at("table-format", path, what, "write names as a list, or as id: name with each id once")
        found[number] = str(name).strip()
    if not found:
        raise BadData.at("table-format", path, "has no 'names'", "write names: [A, B, C] in the order of the ids")
    return dict(sorted(found.items()))


def _open(root: Path, options: Options) -> AnnotatedSource:
    """Read data.yaml and all label files.

    Raises:
        UsageError: tags are asked from where this format has none.
        DataError: a file is at fault.
    """
    if options.reading.tags_from in ("xml", "masks"):
        raise UsageError(f"{root}: YOLO labels have no tags from {options.reading.tags_from}", "--tags-from shapes")
    path = _yaml_of(root, options.reading)
    if path is None:
        raise DataError(f"{root}: no data.yaml there", "write it: names: [A, B, C] in the order of the ids")
    try:
        content = read_yaml(path)
    except UsageError as error:
        raise BadData.at("table-format", path, error.problem, "correct it: names: [A, B, C]") from error
    names = _names(content, path)
    stated = content.get("nc")
    if isinstance(stated, int) and stated != len(names):
        what = f"states {stated} classes (nc), but names {len(names)}"
        options.note(BadData.at("class-unused", path, what, "correct nc or names"))
    photographs = all_images(root, options.note)
    given = split_images(root, path, content, photographs, options.note)
    images = list(_images(root, given, names, options.note))
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=list(names.values()),
        source=path,
        finder=ImageFinder(photographs),
    )


def _images(root: Path, given: Iterable[SplitImage], names: dict[int, str], note: Note) -> Iterator[AnnotatedImage]:
    """Every image with what its label file says."""
    bare = dict[Path, None]()
    for split, written, file, place in given:
        label = None if file is None else _label_file(root, file)
        there = label is not None and is_file(label)
        if label is not None and not there:
            bare[label] = None
        lines = tuple(_lines(label, names, note)) if label is not None and there else ()
        yield AnnotatedImage(
            written=written,
            split=split,
            labels=tuple(dict.fromkeys(names[line.number] for line in lines)),
            place=place if label is None else Place(label),
            shapes=_Shapes(lines, names),
            found=None if file is None else split_suffix(file)[0],
        )
    if bare:
        first = next(iter(bare))
        what = f"{len(bare)} images have no label file and are taken to hold none of the classes (first: {first})"
        findings = [Finding("label-file-missing", Place(label), "no label file") for label in bare]
        note(BadData(f"{root}: {what}", "write an empty file for an image without objects", findings))


def _label_file(root: Path, file: str) -> Path:
    """The label file of an image: in the folder ``labels`` that lies where its folder ``images`` does."""
    *parts, last = file.split("/")
    at = len(parts) - 1 - parts[::-1].index("images") if "images" in parts else None
    folders = parts if at is None else [*parts[:at], "labels", *parts[at + 1 :]]
    return root.joinpath(*folders, f"{split_suffix(last)[0]}.txt")


def _lines(path: Path, names: dict[int, str], note: Note) -> Iterator[_Line]:
    """The lines of a label file; faulty ones are noted and left out."""
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            first, *rest = (float(word) for word in text.split())
            values = tuple(rest)
        except ValueError:
            first, values = math.nan, ()
        whole = math.isfinite(first) and first == int(first)
        place = Place(path, line=number)
        if not whole or not all(map(math.isfinite, values)) or not (len(values) == 4 or _is_outline(values)):
            what = f"'{text[:60]}' is neither an id and an outline nor an id and a box"
            note(BadData.at("table-fields", place, what, "write: id x y x y x y ..., or id x y width height, in 0..1"))
        elif int(first) not in names:
            what = f"class id {int(first)} is not among the names in data.yaml ({min(names)}..{max(names)})"
            note(BadData.at("tag-unknown", place, what, "add its name to data.yaml or correct the id"))
        else:
            yield _Line(int(first), values)


def _is_outline(values: Sequence[float]) -> bool:
    return len(values) >= 6 and len(values) % 2 == 0


YOLO = Reader(
    name="yolo",
    looks_for="data.yaml with label files (labels/SPLIT/*.txt or SPLIT/labels/*.txt)",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
