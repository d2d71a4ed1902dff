"""Entries: what a scan found out about image files, one row an image in a NumPy array.

An entry is valid as long as its file has the same path, length, modification time and change time (all in nanoseconds).
The change time is set by the system alone: a file that ``cp -p`` or ``touch -r`` gave the old length and modification
time is noticed. Inodes are not compared: some network file systems give a file another one at every mount.

Shape suffixes: N entries or files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsss.data.facts import DIGEST_BYTES, ImageFacts

ENTRY = np.dtype(
    [
        ("path", "<u8"),  # hash of the path below the folder
        ("length", "<i8"),  # bytes
        ("modified", "<i8"),  # nanoseconds
        ("changed", "<i8"),  # nanoseconds
        ("size", "<i4", (2,)),  # (H, W), upright; 0 where unreadable
        ("digest", "u1", (DIGEST_BYTES,)),
        ("format", "S4"),
        ("mode", "S8"),
        ("bits", "u1"),
        ("turn", "u1"),
        ("frames", "<i4"),
        ("transparent", "?"),
        ("fault", "<i4"),  # position in the list of faults; -1 where readable
    ]
)

NO_FILE = (-1, -1, -1)
"""The stamp of a file that does not exist."""


class Stamp(NamedTuple):
    """What tells whether a file was changed: bytes, and two times in nanoseconds."""

    length: int
    modified: int
    changed: int


class Fault(NamedTuple):
    """Why an image cannot be read: a key of ``wsss.data.findings.KINDS`` and the reason in words."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Rows of facts.

    Attributes:
        rows_N: of dtype ``ENTRY``.
        faults: the faults that rows point to.
    """

    rows_N: NDArray[np.void]
    faults: tuple[Fault, ...]

    @classmethod
    def empty(cls) -> Entries:
        """No entries."""
        return cls(np.zeros(0, ENTRY), ())

    def __len__(self) -> int:
        return len(self.rows_N)

    def find(self, path_N: NDArray[np.uint64], stamp_N3: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) the position of the valid entry of each file, -1 where there is none; the rows are sorted by path."""
        if not len(self):
            return np.full(len(path_N), -1, np.int64)
        order_N = np.argsort(path_N)  # so that memory is read in its order
        path_N = path_N[order_N]
        position_N = np.minimum(np.searchsorted(self.rows_N["path"], path_N), len(self) - 1)
        valid_N = self.rows_N["path"][position_N] == path_N
        for column, field in enumerate(Stamp._fields):
            valid_N &= self.rows_N[field][position_N] == stamp_N3[order_N, column]
        at_N = np.empty(len(path_N), np.int64)
        at_N[order_N] = np.where(valid_N, position_N, -1)
        return at_N

    def joined(self, other: Entries) -> Entries:
        """These rows and then those of another."""
        moved = other.rows_N.copy()
        moved["fault"][moved["fault"] >= 0] += len(self.faults)
        return Entries(np.concatenate([self.rows_N, moved]), self.faults + other.faults)

    def by_path(self) -> Entries:
        """The last row of each path, sorted by path, with the faults that they point to."""
        _, first = np.unique(self.rows_N["path"][::-1], return_index=True)
        rows_N = self.rows_N[len(self) - 1 - first]
        faulty = rows_N["fault"] >= 0
        kept, number = np.unique(rows_N["fault"][faulty], return_inverse=True)
        rows_N["fault"][faulty] = number
        return Entries(rows_N, tuple(self.faults[position] for position in kept.tolist()))

    def fault(self, position: int) -> Fault | None:
        """Why an image cannot be read; None where it can."""
        number = int(self.rows_N["fault"][position])
        return None if number < 0 else self.faults[number]

    def facts(self, position: int) -> ImageFacts:
        """The facts of a readable image."""
        row: Any = self.rows_N[position]
        height, width = row["size"].tolist()
        return ImageFacts(
            size=(height, width),
            turn=int(row["turn"]),
            format=row["format"].decode(),
            mode=row["mode"].decode(),
            bits=int(row["bits"]),
            frames=int(row["frames"]),
            transparent=bool(row["transparent"]),
            digest=row["digest"].tobytes().hex(),
        )


class EntryList:
    """Collects the entries of a scan."""

    def __init__(self, count: int) -> None:
        self._rows_N = np.zeros(count, ENTRY)
        self._faults: list[Fault] = []
        self._filled = 0

    def add(self, path: int, stamp: Stamp, outcome: ImageFacts | Fault) -> None:
        """Add one entry; there is room for ``count``."""
        row: Any = self._rows_N[self._filled]
        row["path"], row["length"], row["modified"], row["changed"] = path, *stamp
        if isinstance(outcome, Fault):
            row["fault"] = len(self._faults)
            self._faults.append(outcome)
        else:
            row["fault"] = -1
            row["size"], row["digest"] = outcome.size, np.frombuffer(bytes.fromhex(outcome.digest), np.uint8)
            row["format"], row["mode"] = outcome.format.encode(), outcome.mode.encode()
            row["bits"], row["turn"], row["frames"] = outcome.bits, outcome.turn, outcome.frames
            row["transparent"] = outcome.transparent
        self._filled += 1

    def entries(self) -> Entries:
        """Those added so far."""
        return Entries(self._rows_N[: self._filled], tuple(self._faults))


def file_stamp(path: str | os.PathLike[str]) -> Stamp:
    """The stamp of a file; ``NO_FILE`` where it cannot be looked up."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a million Path objects take seconds)
    except OSError:
        return Stamp(*NO_FILE)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def file_stamps(paths: Iterable[str]) -> NDArray[np.int64]:
    """(N, 3) the stamps of files."""
    return np.fromiter((number for path in paths for number in file_stamp(path)), np.int64).reshape(-1, 3)
