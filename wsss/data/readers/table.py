"""Tables of any name and any columns, beside their images."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.findings import BadData, Finding, Note, Place
from wsss.data.images import split_suffix
from wsss.data.near_names import tidy
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource
from wsss.data.readers.image_finder import UPLOAD, ImageFinder
from wsss.data.readers.label_fields import (
    KEEP_WORDS,
    NO_VALUE,
    is_nothing,
    label_separator,
    listed_labels,
    spaces_separate,
)
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.table_columns import (
    MISSING,
    NAMES,
    PRESENT,
    UNCERTAIN,
    Columns,
    find_columns,
    mark,
    plain_column,
)
from wsss.data.readers.table_rows import TABLE_ENDINGS, Rows, first_rows, read_rows
from wsss.data.readers.tag_table import COLUMNS, TAG_FILES
from wsss.data.records import counted
from wsss.data.walking import conventional, is_file, is_folder, names_in
from wsss.reporting import first_few

NOT_IMAGES = ("masks", "Saliency", "labels")
STRANGERS = frozenset({"data", "annotations", "completions", "region_attributes", "region_shape_attributes"})
"""Columns and keys of formats with readers of their own."""
CLASSES_CSV = "_classes.csv"
METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(slots=True)
class _Found:
    """What the lines of one image say together."""

    place: Place
    labels: dict[str, None] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    labelled: bool = False


def parse_table(
    path: Path, options: Options, *, split: str = ONLY_SPLIT, base: str = "", names: Sequence[str] | None = None
) -> tuple[list[AnnotatedImage], tuple[str, ...] | None]:
    """The images of a table, each once, and the classes that its columns declare, or None.

    Args:
        path: of the table.
        options: of the reader.
        split: of lines that name none.
        base: folder of the table below the data folder; "" or ending in "/".
        names: class names by number, where labels are numbers.

    Raises:
        DataError: see ``read_rows`` and ``find_columns``; -1 without --uncertain.
    """
    rows = read_rows(path, options.reading.encoding)
    columns = find_columns(rows, path, options.reading)
    read = partial(_marks, columns, options, path) if columns.classes else _labels(rows, columns, options, path, names)
    found: dict[tuple[str, str], _Found] = {}
    split_lines = any(split_name(cells, columns.split) for cells, _ in rows.rows)
    for cells, place in rows.rows:
        image = cells.get(columns.image)
        if isinstance(image, bool) or not isinstance(image, str | int) or not str(image).strip():
            what = f"no image in the column '{columns.image}', got {reprlib.repr(image)}"
            options.note(BadData.at("table-fields", place, what, "name the image in every line"))
            continue
        own = split_name(cells, columns.split)
        if columns.split and split_lines and (not own or own.casefold() in NO_VALUE):
            what = f"no split for '{str(image).strip()}', but other lines have one"
            options.note(BadData.at("table-split", place, what, f"fill in its split in {path}"))
            continue
        one = found.setdefault((own or split, str(image).strip()), _Found(place))
        try:
            read(cells, place, one)
        except BadData as error:
            options.note(error)
    _say_unread_labels(rows, columns, options, path)
    if columns.classes:
        _say_blank(rows, columns, options.note, path)
        for name, (place, cell) in columns.unread.items():
            what = f"column '{name}' is no class: {cell} is not 0 or 1"
            options.note(BadData.at("column-unread", place, what, "write 1, 0 or ? there if it is one"))
    images = [
        AnnotatedImage(
            written=image,
            split=own,
            labels=tuple(one.labels) if one.labelled else None,
            place=one.place,
            base=base,
            absent=tuple(one.absent - one.labels.keys()),
            unknown=tuple(one.unknown - one.labels.keys()),
        )
        for (own, image), one in found.items()
    ]
    return images, columns.classes or (tuple(names) if names else None)


def split_name(cells: Mapping[str, Any], column: str | None) -> str:
    """The split of a line, or "". In fastai's column ``is_valid`` it is "val" for True and "train" for False."""
    name = str(cells.get(column) or "").strip() if column else ""
    if column and plain_column(column) == "isvalid":
        return "val" if mark(cells.get(column)) in PRESENT else "train"
    return name


def _marks(columns: Columns, options: Options, path: Path, cells: Any, place: Place, one: _Found) -> None:
    """Add what the columns of 0 and 1 say."""
    before = set(one.labels), set(one.absent)
    one.labelled = True
    for name in columns.classes:
        cell = mark(cells.get(name))
        if cell in UNCERTAIN:
            said = options.reading.uncertain
            if said is None:
                what = f"-1 in the column '{name}': uncertain"
                raise BadData.at("table-fields", place, what, "--uncertain 0|1|drop  # absent, present or unknown")
            cell = "?" if said == "drop" else said
        if cell in PRESENT:
            one.labels[name] = None
        elif cell == "?" or (cell == "" and options.reading.unlisted == "unknown"):
            one.unknown.add(name)
        else:
            one.absent.add(name)
    differ = sorted((before[0] & one.absent) | (before[1] & one.labels.keys()))
    if differ:
        what = (
            f"another line of this image, at {one.place}, says otherwise of {first_few(differ)}; it counts as present"
        )
        options.note(BadData.at("tags-differ", place, what, "keep one line for each image"))


def _say_unread_labels(rows: Rows, columns: Columns, options: Options, path: Path) -> None:
    """Say which columns are named as labels are, and not read since another one is."""
    usual = NAMES["labels"].split()
    others = [
        name for name in rows.header if plain_column(name) in usual and name not in (columns.labels, columns.image)
    ]
    if columns.labels is not None and others and not columns.studio and not options.reading.columns:
        what = f"labels are read from '{columns.labels}', not from {first_few([repr(name) for name in others])}"
        fix = f"--columns image={columns.image},labels={others[0]}  # reads the other"
        options.note(BadData.at("column-unread", Place(path, 1), what, fix))


def _say_blank(rows: Rows, columns: Columns, note: Note, path: Path) -> None:
    missing = [
        place
        for cells, place in rows.rows
        if any(str(cells.get(name) or "").strip().lower() in MISSING for name in columns.classes)
    ]
    if missing:
        what = f"missing values (NA, NaN, None) in {counted(len(missing), 'line')} are read as unknown"
        note(BadData(f"{path}: {what}", "write 0 or 1 there", [Finding("cell-blank", missing[0], what)]))
    blank = [place for cells, place in rows.rows if any(mark(cells.get(name)) == "" for name in columns.classes)]
    if blank:
        what = f"blank cells in {len(blank)} lines are read as 0"
        fix = "--unlisted unknown  # it is not known whether such an image has the class"
        note(BadData(f"{path}: {what}", fix, [Finding("cell-blank", blank[0], what)]))


def _labels(
    rows: Rows, columns: Columns, options: Options, path: Path, names: Sequence[str] | None
) -> Callable[[Any, Place, _Found], None]:
    """What reads the cell of labels of a line."""
    key, known = columns.labels or "", {tidy(name) for name in (*(options.classes or ()), *options.reading.none)}
    fields = [cell for cells, _ in rows.rows if isinstance(cell := cells.get(key), str) and cell[:1] not in "[{"]
    separate = (lambda cell: [cell]) if columns.studio else label_separator(fields, known)
    if not columns.studio and (said := spaces_separate(fields, options.classes or ())):
        options.note(BadData.at("label-spaces", path, said, KEEP_WORDS))
    texts = rows.text or columns.studio
    nothing = False

    def read(cells: Any, place: Place, one: _Found) -> None:
        nonlocal nothing
        cell = cells.get(key, "" if texts else None)
        if cell is None:
            return
        one.labelled = True
        for word in cell_words(cell, place, separate, known):
            name = names[int(word)] if names and word.isdecimal() and int(word) < len(names) else word
            if not name:
                continue
            if is_nothing(name) and tidy(name) not in known:
                if not nothing:
                    what = f"'{name}' is read as no label; list it in classes.txt if it is a class"
                    options.note(BadData.at("label-nothing", place, what, "leave the labels of such images empty"))
                nothing = True
                continue
            one.labels[tidy(name)] = None

    return read


def cell_words(cell: Any, place: Place, separate: Callable[[str], list[str]], known: Iterable[str]) -> list[str]:
    """The labels of a cell: a text, a number, a list of them, or {"choices": [...]} of Label Studio."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith('{"choices"'):
            try:
                return cell_words(json.loads(text), place, separate, known)
            except (ValueError, RecursionError):
                pass
        try:
            listed = None if tidy(text) in known else listed_labels(text)
        except ValueError:
            raise _no_labels(cell, place) from None
        return separate(text) if listed is None else listed
    if isinstance(cell, dict) and "choices" in cell:
        cell = cell["choices"]
    values = cell if isinstance(cell, list) else [cell]
    if any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
        raise _no_labels(cell, place)
    return [str(value) for value in values]


def _no_labels(cell: object, place: Place) -> BadData:
    what = f"the labels {reprlib.repr(cell)} are no list of names"
    return BadData.at("label-notation", place, what, "write the names of the labels, separated by ';'")


def table_source(
    root: Path, options: Options, images: Sequence[AnnotatedImage], declared: Sequence[str] | None, source: Path
) -> AnnotatedSource:
    """The source of the images of tables; images on the disk without a line are noted and left out."""
    photographs = table_images(root, options.note)
    listed = {split_suffix(image.written.replace("\\", "/").rpartition("/")[2])[0] for image in images}
    listed |= {UPLOAD.sub("", name) for name in listed}
    bare = [name for name in photographs.files if name.rpartition("/")[2] not in listed]
    if bare:
        what = f"{len(bare)} images have no line and are left out ({first_few(bare)})"
        findings = [Finding("image-unlabelled", Place(source), f"no line for {name}") for name in bare]
        fix = "give each of them a line (an empty label field means none of the classes)"
        options.note(BadData(f"{source}: {what}", fix, findings))
    masks = conventional(root, "masks")
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=declared,
        source=source,
        finder=ImageFinder(photographs, uploads=True),
        mask_folder=masks if is_folder(masks) else None,
    )


def _tables(root: Path, reading: Reading) -> list[Path]:
    """The files at the root, or beside the images, that are tables with an image column."""
    if reading.tags is not None:
        return [reading.tags] if is_general_table(reading.tags, reading) else []
    for folder in (root, root / "images"):
        files = [folder / name for name in names_in(folder)] if is_folder(folder) else []
        found = [path for path in files if path.suffix.lower() in TABLE_ENDINGS and is_general_table(path, reading)]
        first = [path for path in found if path.name.lower() == TAG_FILES[0]]
        if found:
            return first or found
    return []


def is_general_table(path: Path, reading: Reading) -> bool:
    """Whether a file is a table with other columns or of another kind than tags.csv; only its beginning is read."""
    if path.name.startswith(".") or path.name in (CLASSES_CSV, *METADATA) or not is_file(path):
        return False
    rows = first_rows(path, reading.encoding)
    if rows is None or STRANGERS & set(rows.header) or {"image_id", "category_id"} <= set(rows.header):
        return False
    plain = sorted(map(str.lower, rows.header)) in (sorted(COLUMNS), sorted(COLUMNS[:2]))
    if plain and rows.text and (path.name.lower() == TAG_FILES[0] or path == reading.tags):
        return False  # the reader "folder" reads these
    try:
        find_columns(rows, path, reading)
    except BadData as error:
        return error.findings[0].kind == "table-columns"
    return True


def _sniff(root: Path, reading: Reading) -> str | None:
    tables = _tables(root, reading)
    return f"a table of tags, {' and '.join(path.name for path in tables)}" if tables else None


def _open(root: Path, options: Options) -> AnnotatedSource:
    tables = _tables(root, options.reading)
    if len(tables) != 1:
        names = first_few([path.name for path in tables], 20)
        what = f"several files may be the table of tags: {names}" if tables else "no table of tags"
        fix = f"--tags {root / 'FILE'}" if tables else f"--tags {root / TAG_FILES[0]}"
        raise BadData.at("table-several", root, what, fix)
    images, declared = parse_table(tables[0], options)
    return table_source(root, options, images, declared, tables[0])


def table_images(root: Path, note: Note) -> Photographs:
    """All images of a folder with a table."""
    return find_images(root, NOT_IMAGES, note=note)


TABLE = Reader(
    name="table",
    looks_for="a table with a column of images and labels",
    sniff=_sniff,
    open=_open,
    photographs=table_images,
    lists_all=False,
)
