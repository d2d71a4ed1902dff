"""The rows of a table of any kind: CSV, TSV, a JSON list of objects, or a JSON object a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.data.findings import BadData, Place
from wsss.data.readers.tag_table import DELIMITERS, not_csv
from wsss.data.readers.text import read_text

PREFIX = 2**18
"""Bytes that are read to tell whether a file is a table."""
TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as it stands.

    Attributes:
        header: names of the columns, in their order; of JSON all keys, in order of appearance.
        rows: cells by column, and where they stand. Cells of CSV are texts.
        text: whether the cells are texts (CSV and TSV).
    """

    header: tuple[str, ...]
    rows: Sequence[tuple[Mapping[str, Any], Place]]
    text: bool


def read_rows(path: Path, encoding: str = "utf-8") -> Rows:
    """Read a table.

    Raises:
        DataError: it is not in this encoding, or no such table.
    """
    text = read_text(path, encoding)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv_rows(path, text)
    objects = _objects(path, text)
    header = tuple(dict.fromkeys(key for one, _ in objects for key in one))
    return Rows(header, objects, text=False)


def first_rows(path: Path, encoding: str = "utf-8") -> Rows | None:
    """The header and the first rows of a table; None where the file is none. Only its beginning is read."""
    try:
        with path.open("rb") as file:
            content = file.read(PREFIX)
            whole = len(content) < PREFIX
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding, "ignore")
    except (OSError, LookupError):
        return None
    if not whole:
        text = text[: text.rfind("\n") + 1]
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _csv_rows(path, text.replace("\r\n", "\n").replace("\r", "\n"), strict=False)
        if path.suffix.lower() == ".jsonl":
            found = _objects(path, text)
        else:
            start = text.lstrip()
            if not start.startswith("["):
                return None
            first, _ = json.JSONDecoder().raw_decode(start[1:].lstrip())
            found = [(first, Place(path))] if isinstance(first, dict) else []
    except (BadData, ValueError, RecursionError):
        return None
    return Rows(tuple(dict.fromkeys(key for one, _ in found for key in one)), found, text=False) if found else None


def _csv_rows(path: Path, text: str, *, strict: bool = True) -> Rows:
    """Rows by the delimiter that the header has most of; those before the first fault, if not ``strict``."""
    line = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=line.count)
    table = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[tuple[Mapping[str, Any], Place]] = []
    header: tuple[str, ...] = ()
    ended = 0
    try:
        for fields in table:
            if not any(map(str.strip, fields)):
                continue
            if not header:
                header, ended = tuple(map(str.strip, fields)), table.line_num
                twice = next((name for name in header if name and header.count(name) > 1), None)
                if twice is not None and strict:
                    what = f"two columns are named '{twice}'"
                    raise BadData.at("table-header", Place(path, table.line_num), what, "rename or delete one of them")
                continue
            if len(fields) > len(header) and any(map(str.strip, fields[len(header) :])):
                if not strict:
                    break
                what = f"{len(fields)} fields, but the header has {len(header)} ({', '.join(header)})"
                fix = "put fields that hold the delimiter in double quotes"
                raise BadData.at("table-fields", Place(path, table.line_num), what, fix)
            rows.append((dict(zip(header, map(str.strip, fields), strict=False)), Place(path, table.line_num)))
            ended = table.line_num
    except csv.Error as error:
        if not strict:
            return Rows(header, rows, text=True)
        raise not_csv(path, ended + 1, error) from error
    return Rows(header, rows, text=True)


def _objects(path: Path, text: str) -> list[tuple[Mapping[str, Any], Place]]:
    """The objects of a JSON list, or of a file with one a line."""
    found: list[tuple[Any, Place]] = []
    place = Place(path)
    try:
        if path.suffix.lower() == ".jsonl":
            for number, line in enumerate(text.split("\n"), start=1):
                place = Place(path, number)
                if line.strip():
                    found.append((json.loads(line), place))
        else:
            listed = json.loads(text)
            if not isinstance(listed, list):
                raise BadData.at("table-format", place, "expected a list of objects", f"python -m json.tool {path}")
            found = [(one, Place(path, entry=str(number))) for number, one in enumerate(listed)]
    except (ValueError, RecursionError) as error:
        raise BadData.at("table-format", place, f"not JSON ({error})", f"python -m json.tool {path}") from error
    for one, at in found:
        if not isinstance(one, dict):
            raise BadData.at("table-format", at, "expected an object", 'write {"image": "a.jpg", "labels": ["cat"]}')
    return found
