"""JSON of annotation programs: parsed, and each field checked for its type, with errors that name the entry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.findings import BadData, Place
from wsss.data.readers.text import read_text
from wsss.data.walking import is_file, names_in

PREFIX = 2**16
"""Bytes at the beginning of a file by which its format is told."""

FOREIGN = re.compile(
    r'<annotations|"(categories|annotations|completions|predictions|regions|_via_img_metadata)"\s*:|region_attributes'
)
"""Found at the beginning of files of annotation programs, and of no table of tags."""
NOUNS = {"list": "a list", "dict": "an object", "str": "a text"}
"""Kinds of JSON values by the names of their types."""


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: it is no UTF-8 text or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadData.at("annotation-unreadable", path, f"not JSON ({error})", f"python -m json.tool {path}") from error


def as_list(value: Any, what: str, place: Place) -> list[Any]:
    """A value that must be a list; None is an empty one."""
    return _checked([] if value is None else value, list, what, place)  # type: ignore[no-any-return]


def as_object(value: Any, what: str, place: Place) -> dict[str, Any]:
    """A value that must be an object; None is an empty one."""
    return _checked({} if value is None else value, dict, what, place)  # type: ignore[no-any-return]


def as_text(value: Any, what: str, place: Place) -> str:
    """A value that must be a text; a whole number counts as its digits."""
    return str(value) if type(value) is int else _checked(value, str, what, place)


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """(H, W) where both are whole numbers above 0; None where the file leaves them open."""
    return (height, width) if type(height) is int and type(width) is int and height > 0 and width > 0 else None


def _checked(value: Any, kind: type, what: str, place: Place) -> Any:
    if isinstance(value, kind):
        return value
    told = f"{what} must be {NOUNS[kind.__name__]}, got {str(value)[:40]!r}"
    raise BadData.at("annotation-unreadable", place, told, "correct this entry, or export it again")


def prefix_of(path: Path) -> str:
    """The beginning of a file as text; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(PREFIX).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def files_of(folder: Path, *endings: str) -> list[Path]:
    """The files in a folder with one of these endings (lower case), sorted."""
    return [folder / name for name in names_in(folder) if name.lower().endswith(endings) and is_file(folder / name)]


def candidates(root: Path, reading: Reading, *endings: str) -> list[Path]:
    """The file that --tags names, or all files at the root of a data folder, with one of these endings (lower case)."""
    if reading.tags is None:
        return files_of(root, *endings)
    return [reading.tags] if reading.tags.name.lower().endswith(endings) and is_file(reading.tags) else []


def is_foreign(path: Path) -> bool:
    """Whether a file that --tags names is one of an annotation program, which another reader reads."""
    ending = path.suffix.lower()
    if ending in (".yaml", ".yml"):
        return True
    return ending in (".json", ".xml", ".csv") and bool(FOREIGN.search(prefix_of(path)))


def only(paths: list[Path], root: Path) -> Path:
    """The one file that was found.

    Raises:
        DataError: there are several, which are named with the option that chooses.
    """
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        fix = "   or   ".join(f"--tags {path}" for path in paths[:3]) or f"ls {root}"
        raise BadData.at("annotation-several", root, f"one annotation file is expected, found {names}", fix)
    return paths[0]
