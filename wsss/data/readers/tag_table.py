"""The table of tags, tags.csv or tags.json: one line for each image, its labels and perhaps its split.

Every format may have one. Labels stay words in this module; ``wsss.data.dataset`` gives them their indices.
"""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from wsss.data.findings import BadData, Finding, Note, Place, refuse
from wsss.data.images import split_suffix
from wsss.data.near_names import tidy
from wsss.data.readers.label_fields import (
    KEEP_WORDS,
    LABEL_SEPARATORS,
    NO_VALUE,
    is_nothing,
    label_separator,
    listed_labels,
    spaces_separate,
)
from wsss.data.readers.text import read_text
from wsss.data.records import counted
from wsss.data.walking import conventional, is_file
from wsss.reporting import first_few

TAG_FILES = ("tags.csv", "tags.json")
COLUMNS = ("image", "labels", "split")
DELIMITERS = (",", ";", "\t")
"""Field separators of a table; the header tells which."""
ONLY_SPLIT = "all"
"""The split of a table without a split column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One entry of a table as it stands; the labels are still one string in CSV, a list in JSON."""

    image: str
    labels: str | list[str]
    split: str
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class TagLine:
    """One entry of a table: the image without its suffix, the suffix or "", and its labels."""

    name: str
    suffix: str
    labels: tuple[str, ...]
    split: str
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Separator:
    """A character that separates labels, and the first place where one does."""

    character: str
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class TagFile:
    """A table of tags.

    Attributes:
        path: of the file.
        lines: by image name, in their order.
        separator: what separates labels; None where white space does.
    """

    path: Path
    lines: dict[str, TagLine]
    separator: Separator | None = None

    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(line.split for line in self.lines.values()))

    def classes(self, note: Note = refuse) -> tuple[str, ...]:
        """All labels, sorted.

        Raises:
            DataError: there is none; or ``note`` raises for one that looks like several that were not separated.
        """
        names = {label for line in self.lines.values() for label in line.labels}
        if not names:
            raise BadData.at("tags-none", self.path, "no image has a label", f"fill in the labels of {self.path}")
        for name in sorted(names):
            words = name.split()
            if len(words) > 1 and names.issuperset(words):
                place = next(line.place for line in self.lines.values() if name in line.labels)
                what = f"'{name}' may be one class or {len(words)}, as other images have {words}{self.why_joined()}"
                fix = "separate labels by ';' in every line, or list every class in classes.txt"
                note(BadData.at("tag-ambiguous", place, what, fix))
        return tuple(sorted(names))

    def why_joined(self) -> str:
        """The separator that keeps several words one label, for messages; empty where there is none."""
        if self.separator is None:
            return ""
        character, line = self.separator.character, self.separator.place.line
        return f" (the '{character}' in line {line} makes '{character}' the separator of every line)"


def find_tag_file(root: Path, *, note: Note | None = None) -> Path | None:
    """The table at the root of a data folder; ``note`` is called where there are two, of which the first is taken."""
    tables = [path for name in TAG_FILES if is_file(path := conventional(root, name))]
    if len(tables) > 1 and note is not None:
        what = f"it is not read, since there is {tables[0].name}{_compared(*tables)}"
        note(BadData.at("table-second", tables[1], what, f"--tags {tables[1]}  # takes it instead"))
    return tables[0] if tables else None


def _compared(first: Path, second: Path) -> str:
    """What two tables say differently, in words; empty where one of them is at fault."""
    try:
        own, other = (read_tag_file(path, prefix="images", note=lambda error: None).lines for path in (first, second))
    except BadData:
        return ""
    differ = [name for name in own if name in other and {*own[name].labels} != {*other[name].labels}]
    lone = [name for name in (*own, *other) if (name in own) != (name in other)]
    said = [f"{counted(len(differ), 'image')} with other labels ({first_few(differ)})"] if differ else []
    said += [f"{counted(len(lone), 'image')} in only one of the two ({first_few(lone)})"] if lone else []
    return f"; {' and '.join(said) or 'both say the same'}"


def read_tag_file(
    path: Path, *, prefix: str = "", known: Collection[str] = (), encoding: str = "utf-8", note: Note = refuse
) -> TagFile:
    """Read a table of tags.

    Args:
        path: CSV with a header ``image,labels`` and perhaps ``split``, or JSON: image to list of labels.
        prefix: folder that image paths may start with; taken off.
        known: class names; a field that is exactly one of them is never split, and a label that is one of them is
            never taken for a word that says that there is no label.
        encoding: of its characters.
        note: called with each faulty line; if it returns, the line is left out.

    Raises:
        DataError: it is missing, not UTF-8, not such a table, or lists an image twice or outside the folder.
    """
    rows = _read_json(path, encoding, note) if path.suffix.lower() == ".json" else _read_csv(path, encoding, note)
    rows = _without_nothing(_with_lists(rows, known, note), path, known, note)
    separator = _find_separator(rows)
    fields = [row.labels for row in rows if isinstance(row.labels, str)]
    separate = label_separator(fields, known)
    if said := spaces_separate(fields, known):
        note(BadData.at("label-spaces", path, said, KEEP_WORDS))
    lines: dict[str, TagLine] = {}
    for row in rows:
        try:
            line = _read_row(row, prefix, separate)
        except BadData as error:
            note(error)
            continue
        if line.name in lines:
            what = f"'{row.image}' is listed before, at {lines[line.name].place}"
            fix = f"keep one line for each image in {path}, with all its labels"
            note(BadData.at("image-twice", row.place, what, fix))
            continue
        lines[line.name] = line
    if not lines:
        raise BadData.at("table-empty", path, "it lists no image", f"add one line for each image to {path}")
    return TagFile(path=path, lines=lines, separator=separator)


def _read_row(row: Row, prefix: str, separate: Callable[[str], list[str]]) -> TagLine:
    """A row with the name of its image and its labels, separated, each once.

    Raises:
        DataError: the path of the image leaves the folder.
    """
    name, suffix = image_name(row.image, row.place, prefix)
    labels = separate(row.labels) if isinstance(row.labels, str) else row.labels
    kept = tuple(dict.fromkeys(filter(None, map(tidy, labels))))
    return TagLine(name=name, suffix=suffix, labels=kept, split=row.split, place=row.place)


def _with_lists(rows: Iterable[Row], known: Collection[str], note: Note) -> list[Row]:
    """The rows, where a label field in the notation of a programming language has become a list."""
    names = {tidy(name) for name in known}
    done = []
    for row in rows:
        try:
            labels = None if not isinstance(row.labels, str) or tidy(row.labels) in names else listed_labels(row.labels)
        except ValueError:
            what = f"the labels {reprlib.repr(row.labels)} are no list of names"
            note(BadData.at("label-notation", row.place, what, "write the names of the labels, separated by ';'"))
            continue
        done.append(row if labels is None else replace(row, labels=labels))
    return done


def _without_nothing(rows: list[Row], path: Path, known: Collection[str], note: Note) -> list[Row]:
    """The rows without labels that say that there is none; each such word is noted once, with how many rows have it."""
    names = {tidy(name).casefold() for name in known}
    separate = label_separator((row.labels for row in rows if isinstance(row.labels, str)), known)
    found: dict[str, list[Place]] = {}
    done = []
    for row in rows:
        whole = isinstance(row.labels, str) and is_nothing(row.labels)
        labels = [str(row.labels)] if whole else separate(row.labels) if isinstance(row.labels, str) else row.labels
        words = [label for label in labels if is_nothing(label) and tidy(label).casefold() not in names]
        for word in words:
            found.setdefault(tidy(word), []).append(row.place)
        done.append(replace(row, labels=[label for label in labels if label not in words]) if words else row)
    if found:
        note(_nothing(found, path))
    return done


def _nothing(found: Mapping[str, Sequence[Place]], path: Path) -> BadData:
    """The warning for words that were read as no label."""
    whats = {word: f"'{word}' in {counted(len(places), 'line')} is read as no label" for word, places in found.items()}
    return BadData(
        f"{path}: {'; '.join(whats.values())}; list it in classes.txt if it is a class",
        f"leave the labels of these images empty in {path}",
        [
            Finding("label-nothing", places[0], f"{whats[word]}; list it in classes.txt if it is a class")
            for word, places in found.items()
        ],
    )


def _find_separator(rows: Iterable[Row]) -> Separator | None:
    """The first separator of labels in a table; lists need none."""
    for row in rows:
        for character in row.labels if isinstance(row.labels, str) else "":
            if character in LABEL_SEPARATORS:
                return Separator(character=character, place=row.place)
    return None


def image_name(image: str, place: Place, prefix: str = "") -> tuple[str, str]:
    """Name and suffix of an image given by its path below the image folder.

    Raises:
        DataError: the path is empty, absolute or climbs out of the folder.
    """
    path = PurePosixPath(image.strip().replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", str(path)):
        what = f"'{image}' leaves the data folder or names nothing"
        fix = "give every image by its path below the data folder, such as street/0001.jpg"
        raise BadData.at("path-outside", place, what, fix)
    parts = path.parts[1:] if len(path.parts) > 1 and path.parts[0].casefold() == prefix.casefold() else path.parts
    return split_suffix("/".join(parts))


def _read_csv(path: Path, encoding: str, note: Note) -> list[Row]:
    """Rows of a table with the columns image, labels and perhaps split."""
    text = read_text(path, encoding)
    header, delimiter = _read_header(path, text.split("\n", 1)[0])
    table = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, ended = [], 1
    try:
        for fields in _list_rows(table):
            ended = table.line_num
            try:
                rows.append(_read_fields(header, fields, Place(path, table.line_num)))
            except BadData as error:
                note(error)
    except csv.Error as error:
        raise not_csv(path, ended + 1, error) from error
    return rows


def not_csv(path: Path, line: int, error: csv.Error) -> BadData:
    """The error for the row that begins in a line and is no CSV, mostly since a quote is not closed."""
    fix = "close every double quote in that line, right before the next comma"
    return BadData.at("table-format", Place(path, line), f"not CSV from there on ({error})", fix)


def _read_fields(header: list[str], fields: list[str], place: Place) -> Row:
    """One line of a table.

    Raises:
        DataError: it has too many or too few fields, or no split.
    """
    if len(fields) != len(header):
        what = f"{len(fields)} fields, but the header has {len(header)} ({', '.join(header)})"
        fix = "separate the labels of an image by ';', or put them in double quotes"
        raise BadData.at("table-fields", place, what, fix)
    cell = dict(zip(header, fields, strict=True))
    split = cell.get("split", ONLY_SPLIT).strip()
    if not split or split.casefold() in NO_VALUE:
        what, fix = f"no split for '{cell['image']}'", f"fill in its split in {place.path}"
        raise BadData.at("table-split", place, what, fix)
    return Row(image=cell["image"], labels=cell["labels"], split=split, place=place)


def _list_rows(table: Iterable[list[str]]) -> Iterable[list[str]]:
    """The rows below the header that are not blank."""
    for number, fields in enumerate(table):
        if number and any(field.strip() for field in fields):
            yield fields


def _read_header(path: Path, line: str) -> tuple[list[str], str]:
    """Column names of a table, in lower case, and its delimiter."""
    for delimiter in DELIMITERS:
        header = [field.strip().strip('"').lower() for field in line.split(delimiter)]
        if sorted(header) in (sorted(COLUMNS), sorted(COLUMNS[:2])):
            return header, delimiter
    what = f"the header must be 'image,labels' or 'image,labels,split', got '{line.strip()}'"
    raise BadData.at("table-header", Place(path, 1), what, f"begin {path} with the line image,labels")


def _read_json(path: Path, encoding: str, note: Note) -> list[Row]:
    """Rows of a JSON object: image to list of labels."""
    try:
        pairs = json.loads(read_text(path, encoding), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise BadData.at("table-format", path, f"not JSON ({error})", f"python -m json.tool {path}") from error
    shape = f'write {path} like {{"street/0001": ["cat", "dog"], "street/0002": []}}'
    if not isinstance(pairs, tuple):  # the hook makes a tuple of an object; an array stays a list
        raise BadData.at("table-format", path, "expected one object, image to list of labels", shape)
    rows = []
    for image, labels in pairs:
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            rows.append(Row(image=image, labels=labels, split=ONLY_SPLIT, place=Place(path, entry=image)))
        else:
            what = f"'{image}' must have a list of labels, got {reprlib.repr(labels)}"
            note(BadData.at("table-fields", path, what, shape))
    return rows
