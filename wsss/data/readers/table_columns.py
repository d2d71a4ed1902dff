"""Which column of a table names the image, which the labels, the split or, with cells of 0 and 1, a class."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wsss.config import Reading
from wsss.data.findings import BadData, Place
from wsss.data.readers.label_fields import NO_VALUE
from wsss.data.readers.table_rows import Rows
from wsss.reporting import first_few

NAMES = {
    "image": "image filename file imagename imagepath path imageindex img imageid id",
    "labels": "labels label tags tag classes class category target findinglabels labelname classname",
    "split": "split subset set fold isvalid",
}
"""Names of columns by their use, the first that is there; in lower case without spaces, "_" and "-"."""
STUDIO = frozenset(["annotationid", "annotator", "createdat", "updatedat", "leadtime", "id", "comment", "agreement"])
"""Columns of an export of Label Studio that are neither the image nor labels."""
NO_CLASS = frozenset({"", "id", "index", "unnamed:0"})
PRESENT = frozenset({"1", "1.0", "true", "yes", "y", "x"})
ABSENT = frozenset({"0", "0.0", "false", "no", "n"})
UNCERTAIN = frozenset({"-1", "-1.0"})
MISSING = NO_VALUE | {"na", "n/a", "none"}
"""What R, pandas and spreadsheets write for a value that is not known; in lower case."""
MARKS = PRESENT | ABSENT | UNCERTAIN | {"", "?"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Names of columns by their use.

    Attributes:
        image: of the image.
        labels: of the labels; None where ``classes`` are.
        split: of the split, or None.
        classes: those whose cells are 0 and 1.
        unread: beside ``classes``, the others, and what keeps each from being a class.
        studio: whether Label Studio wrote the table: a text is then one label.
    """

    image: str
    labels: str | None
    split: str | None
    classes: tuple[str, ...]
    studio: bool
    unread: Mapping[str, tuple[Place, str]]


def find_columns(rows: Rows, path: Path, reading: Reading) -> Columns:
    """The columns of a table by their names, or as ``--columns`` tells them.

    Raises:
        DataError: there is no column of images or labels, or several may hold the labels.
    """
    told = _told(rows, path, reading)
    plain = {plain_column(name): name for name in reversed(rows.header)}
    use = {
        key: told.get(key) or next((plain[n] for n in names.split() if n in plain), None)
        for key, names in NAMES.items()
    }
    studio = ("annotator" in plain and bool({"annotationid", "id"} & plain.keys())) or _has_choices(rows)
    image, labels = use["image"], use["labels"]
    if image is None:
        what = f"no column names the image; the columns are {first_few(list(rows.header), 20)}"
        raise BadData.at("table-header", Place(path, 1), what, "--columns image=NAME,labels=NAME")
    if studio and "labels" not in told:
        labels = _studio_labels(rows, path, image, use["split"])
    others = {image, use["split"] or ""}
    classes = () if labels else tuple(_marked(rows, others))
    if labels is None and not classes:
        name, (place, cell) = next(iter(_unmarked(rows, others).items()), ("", (Place(path, 1), "")))
        near = f" (column '{name}' has {cell}, which is neither)" if name else ""
        what = f"no column holds labels or 0 and 1{near}; the columns are {first_few(list(rows.header), 20)}"
        fix = "write 1, 0 or ? (unknown) in this column" if near else f"--columns image={image},labels=NAME"
        raise BadData.at("table-columns" if near else "table-header", place, what, fix)
    unread = _unmarked(rows, {*others, *classes}) if classes else {}
    return Columns(image=image, labels=labels, split=use["split"], classes=classes, studio=studio, unread=unread)


@lru_cache(maxsize=1024)  # the cells are few
def mark(cell: object) -> str:
    """A cell of a column of 0 and 1, in one spelling; what programs write for a missing value is "?"."""
    text = "" if cell is None else str(cell).strip().lower()
    return "?" if text in MISSING else text


def _told(rows: Rows, path: Path, reading: Reading) -> dict[str, str]:
    told = {}
    for pair in reading.columns:
        key, _, name = (part.strip() for part in pair.partition("="))
        if key not in NAMES or name not in rows.header:
            what = f"no column '{name}' for '{key}' ({', '.join(NAMES)}); there are {first_few(list(rows.header), 20)}"
            raise BadData.at("table-header", Place(path, 1), what, "--columns image=NAME,labels=NAME,split=NAME")
        told[key] = name
    if reading.tag_field is not None and reading.tag_field in rows.header:
        told.setdefault("labels", reading.tag_field)
    return told


def _has_choices(rows: Rows) -> bool:
    """Whether the first row holds choices as Label Studio writes several of them: ``{"choices": [...]}``."""
    cells = rows.rows[0][0].values() if rows.rows else ()
    return any("choices" in cell if isinstance(cell, dict) else str(cell).startswith('{"choices"') for cell in cells)


def _studio_labels(rows: Rows, path: Path, image: str, split: str | None) -> str:
    """The one column of choices of an export of Label Studio."""
    rest = [name for name in rows.header if plain_column(name) not in STUDIO and name not in (image, split)]
    if len(rest) != 1:
        what = f"several columns may hold the labels: {first_few(rest, 20)}" if rest else "no column holds labels"
        kind = "table-columns" if rest else "table-header"
        raise BadData.at(kind, Place(path, 1), what, f"--tag-field {rest[0] if rest else 'NAME'}")
    return rest[0]


def _marked(rows: Rows, others: set[str]) -> Iterable[str]:
    """Columns whose cells are all 0, 1, -1, ? or blank, and not all blank."""
    for name in rows.header:
        if name in others or plain_column(name) in NO_CLASS:
            continue
        seen = set()
        for cells, _ in rows.rows:
            cell = cells.get(name)
            seen.add(mark(cell) if not isinstance(cell, list | dict) else "no mark")
            if len(seen) > len(MARKS):
                break
        if seen <= MARKS and seen != {""}:
            yield name


def _unmarked(rows: Rows, others: set[str]) -> dict[str, tuple[Place, str]]:
    """Columns that may be meant as classes but have other cells than marks: the first such cell of each.

    These are columns of numbers, as counts and probabilities, and those with marks in most lines.
    """
    found = {}
    for name in rows.header:
        if name in others or plain_column(name) in NO_CLASS:
            continue
        cells = [(cells.get(name), place) for cells, place in rows.rows]
        if any(isinstance(cell, list | dict) for cell, _ in cells):
            continue
        odd = [(mark(cell), place) for cell, place in cells if mark(cell) not in MARKS]
        numbers = all(re.fullmatch(r"[-+]?\d*[.,]?\d+%?", cell) for cell, _ in odd)
        if odd and (numbers or 2 * len(odd) < len(rows.rows)):
            found[name] = odd[0][1], reprlib.repr(odd[0][0])
    return found


def plain_column(name: str) -> str:
    """The name of a column in lower case without spaces, "_" and "-"."""
    return "".join(letter for letter in name.casefold() if letter not in " _-")
