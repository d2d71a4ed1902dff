"""The journal of a folder of label maps: one JSON line an image, appended when all files of the image are complete.

A line holds all that decides whether the files are still valid, and all that is counted and hashed, so that no file is
read back later. The last line of a name counts; a line ``{"name": NAME, "removed": true}`` takes an image out. Lines
are only ever appended, so several processes can write side by side, each to a file ``journal.I-of-N.jsonl`` of its own;
its lines are newer than those of ``journal.jsonl``. A process that is killed leaves at most one broken line, which is
ignored.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from wsss.files import disk_errors

JOURNAL = "journal.jsonl"
JOURNALS = "journal*.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The files of one image and what they were made from.

    Attributes:
        name: of the image in its set.
        origin: absolute path of the image file when it was read.
        source: digest of the bytes that were read: of the image and, after "+", of each other layer that was used.
        tags: sorted class indices from 0.
        settings: digest of the settings (`settings_digest`).
        pixels: number of pixels by class index; 0 is the background, 255 is ignored.
        files: SHA-256 of each file by its path in the folder ("labels/NAME.png").
        certainty: in [0, 1] by class index: the mean margin of a prediction, the mean class score of a pseudo label;
            empty where it is unknown (an earlier version, or windows).
    """

    name: str
    origin: str
    source: str
    tags: tuple[int, ...]
    settings: str
    pixels: dict[int, int]
    files: dict[str, str]
    certainty: dict[int, float] = field(default_factory=dict)

    @property
    def mean_certainty(self) -> float | None:
        """The certainties of the classes, weighted by their pixels; None where none is known."""
        weights = {index: count for index, count in self.pixels.items() if index in self.certainty}
        total = sum(weights.values())
        return sum(self.certainty[index] * count for index, count in weights.items()) / total if total else None

    @property
    def image(self) -> str:
        """Digest of the bytes of the image alone."""
        return self.source.partition("+")[0]


def entry_from(line: Mapping[str, Any]) -> Entry:
    """The entry of a parsed line.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is none.
    """
    return Entry(
        name=str(line["name"]),
        origin=str(line["origin"]),
        source=str(line["source"]),
        tags=tuple(int(tag) for tag in line["tags"]),
        settings=str(line["settings"]),
        pixels={int(index): int(count) for index, count in line["pixels"].items()},
        files={str(path): str(digest) for path, digest in line["files"].items()},
        certainty={int(index): float(value) for index, value in line.get("certainty", {}).items()},
    )


def read_journal(folder: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Entry]:
    """The entries of all journals of a folder by image name; broken lines are left out.

    Args:
        folder: that holds them.
        say: called with the number of broken lines of a journal, where there are any.

    Raises:
        DiskError: a journal cannot be read.
    """
    return read_journals(sorted(folder.glob(JOURNALS), key=lambda path: (path.name != JOURNAL, path.name)), say)


def read_journals(
    paths: Iterable[Path], say: Callable[[str], None] = lambda text: None, only: Collection[str] | None = None
) -> dict[str, Entry]:
    """The entries of journals, older ones first, as `read_journal`; of images of these names ``only``."""
    entries: dict[str, Entry] = {}
    for path in (path for path in paths if path.is_file()):
        with disk_errors(path), path.open("rb") as file:
            broken = [number for number, line in enumerate(file, 1) if not _read_line(line, entries, only)]
        if broken:
            lines = f"line {broken[0]}" if len(broken) == 1 else f"{len(broken)} lines (the first is {broken[0]})"
            say(f"{path}: {lines} cut short or damaged; an image that has no other line is made again")
    return entries


def _read_line(line: bytes, entries: dict[str, Entry], only: Collection[str] | None) -> bool:
    """Read a line into the entries; whether it could be read. The empty line that ends a broken one can."""
    try:
        content = json.loads(line)
        if only is not None and content["name"] not in only:
            return True
        if content.get("removed"):
            entries.pop(str(content["name"]), None)
        else:
            entry = entry_from(content)
            entries[entry.name] = entry
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return not line.strip()  # cut short by a kill, or damaged: its image counts as not made
    return True


class Journal:
    """A journal that is open for appending; use it as a context. `add` may be called from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        with disk_errors(self._path):
            broken = self._path.is_file() and not _ends_a_line(self._path)
            self._file = self._path.open("ab")
            if broken:
                self._append(b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        with disk_errors(self._path), file:
            file.flush()
            os.fsync(file.fileno())

    def sync(self) -> None:
        """Sync all lines to the disk."""
        assert self._file is not None, "a journal is a context"
        with disk_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def add(self, entry: Entry) -> None:
        """Append the line of an image whose files are complete.

        Raises:
            DiskError: it cannot be written; the files of the image then count as not made.
        """
        self._lines([asdict(entry)])

    def remove(self, names: Iterable[str]) -> None:
        """Append lines that take images out. Call it before their files are deleted."""
        self._lines({"name": name, "removed": True} for name in names)

    def _lines(self, contents: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(content) + "\n" for content in contents)  # ASCII: names of any bytes survive
        with self._lock, disk_errors(self._path):
            self._append(text.encode("ascii"))

    def _append(self, content: bytes) -> None:
        assert self._file is not None, "a journal is a context"
        self._file.write(content)
        self._file.flush()


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
