"""The index: what is known of the images of a set without opening them again.

The first scan of a folder reads and decodes every image once, in threads; ``wsss.data.index_file`` keeps what it found.
Later scans look up length and times of each file and open only those that are new or changed.

Shape suffixes: N records, M of them that are scanned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsss.data.entries import Entries, EntryList, Fault, Stamp
from wsss.data.facts import ImageFacts, examine_bands, examine_image, pixel_count
from wsss.data.images import UnreadableImage
from wsss.data.index_file import load_index, save_index
from wsss.data.records import Record, Records, TaggedSet
from wsss.data.threads import Budget, in_threads
from wsss.errors import DataError, MachineError
from wsss.reporting import Reporter, Silent

BYTES_AT_ONCE = 2**27
"""Bytes of files that the threads hold."""
PIXELS_AT_ONCE = 2**26
"""Pixels that the threads decode at the same time; Pillow takes 4 bytes for each, OpenCV 3."""
SAVE_SECONDS = 60
"""A long scan is saved this often, for the case that its process is killed."""
FINE, COARSE = 50_000_000, 2_000_000_000
"""Nanoseconds within which two changes of a file may get the same time, by file systems that count in parts of a
second or in whole seconds. An entry of a file that was changed so shortly before the scan is not kept."""

_said: set[str] = set()
"""Remarks that this process has made already."""


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What is known of each record of a set.

    Attributes:
        records: the set.
        entries: rows, in another order.
        at_N: position of the row of each record.
    """

    records: Records
    entries: Entries
    at_N: NDArray[np.int64]

    def facts(self, index: int) -> ImageFacts:
        """The facts of a record's image.

        Raises:
            UnreadableImage: it cannot be read.
        """
        fault = self.entries.fault(int(self.at_N[index]))
        if fault is not None:
            raise UnreadableImage(self.records[index].image, fault.reason, fault.kind)
        return self.entries.facts(int(self.at_N[index]))

    def sizes(self) -> list[tuple[int, int] | None]:
        """(H, W) of each image; None where it cannot be read."""
        sizes = self.entries.rows_N["size"][self.at_N].tolist()
        return [(height, width) if height else None for height, width in sizes]

    def turns(self) -> list[int]:
        """The EXIF orientation of each image, 1 (upright) to 8; 1 where it cannot be read."""
        return [turn or 1 for turn in self.entries.rows_N["turn"][self.at_N].tolist()]

    def known(self) -> Records:
        """All records, with size and digest where their images can be read."""
        rows_N = self.entries.rows_N[self.at_N]
        bits = int(rows_N["bits"].max(initial=8))
        return replace(self.records, size_N2=rows_N["size"], digest_ND=rows_N["digest"], bits=bits)

    def readable(self) -> Records:
        """The records whose images can be read, with size and digest."""
        found, faulty = self.known(), self._faulty()
        return found.take(np.flatnonzero(~faulty)) if faulty.any() else found

    def broken(self) -> tuple[str, ...]:
        """For each other record "NAME: why"."""
        positions = np.flatnonzero(self._faulty()).tolist()
        faults = ((i, self.entries.fault(int(self.at_N[i]))) for i in positions)
        return tuple(f"{self.records.names[i]}: {fault.reason}" for i, fault in faults if fault is not None)

    def _faulty(self) -> NDArray[np.bool_]:
        faulty_N: NDArray[np.bool_] = self.entries.rows_N["fault"][self.at_N] >= 0
        return faulty_N


def keep_readable(
    tagged: TaggedSet, *, limit: float = 0.01, reporter: Reporter | None = None
) -> tuple[TaggedSet, tuple[str, ...]]:
    """Leave out the images that cannot be decoded to their end.

    Args:
        tagged: the set.
        limit: share of broken images, in [0, 1], above which the set is refused; a single one is left out however
            small the set is, unless the limit is 0.
        reporter: gets the progress of the scan, if images must be opened.

    Returns:
        The set without them, its records with size and digest, and "NAME: why" for each.

    Raises:
        DataError: more than ``limit`` of them are broken, and more than one; or all.
    """
    scan = scan_images(tagged.records, reporter, f"checking {tagged.split}")
    kept, broken = scan.readable(), scan.broken()
    if len(broken) > (max(1, limit * len(tagged)) if limit else 0) or (broken and not kept):
        raise too_many_broken(tagged, broken)
    return replace(tagged, records=kept), broken


def keep_readable_records(
    records: Sequence[Record], *, reporter: Reporter | None = None
) -> tuple[Records, tuple[str, ...]]:
    """The records whose images decode to their end, with size and digest, and "NAME: why" for each other."""
    scan = scan_images(records, reporter)
    return scan.readable(), scan.broken()


def too_many_broken(tagged: TaggedSet, broken: Sequence[str]) -> DataError:
    """The error for a set with more broken images than are left out; proposes the limit that allows them."""
    problem = f"{tagged.root}: {len(broken)} of {len(tagged)} images are unreadable ({'; '.join(broken[:3])})"
    check = f"wsss data check {tagged.root}"
    if len(broken) == len(tagged):
        return DataError(problem, f"{check}  # names every one")
    passing = (100 * len(broken) // len(tagged) + 1) / 100
    return DataError(problem, f"--set data.bad_limit={passing:g}  # skips them; {check} names every one")


def scan_images(records: Sequence[Record], reporter: Reporter | None = None, what: str = "checking images") -> Scan:
    """What is known of the images of some records; opens those that the index does not know.

    What was found is kept also if the scan is interrupted.

    Args:
        records: of one folder.
        reporter: gets the progress, if images must be opened.
        what: is done, for the progress.
    """
    reporter = reporter or Silent()
    columns = Records.of(records)
    path_N = columns.paths.hashes()
    if columns.bands:  # other bands are other pictures
        path_N = path_N ^ np.uint64(int.from_bytes(blake2b(repr(columns.bands).encode(), digest_size=8).digest()))
    index = load_index(columns.folder)
    stamp_N3 = columns.stamps()
    at_N = index.find(path_N, stamp_N3)
    new_M = np.flatnonzero(at_N < 0)
    if not len(new_M):
        return Scan(columns, index, at_N)
    reporter.begin(what, len(columns), done=len(columns) - len(new_M))
    found = _scan_new(columns, path_N, new_M, reporter)
    at_N[new_M] = len(index) + np.arange(len(new_M))
    return Scan(columns, index.joined(found), at_N)


def _scan_new(columns: Records, path_N: NDArray[np.uint64], new_M: NDArray[np.int64], reporter: Reporter) -> Entries:
    """Entries of these records, in their order; those that may be kept are saved."""
    found, lasting = EntryList(len(new_M)), EntryList(len(new_M))
    examine = partial(_examine, bytes_held=Budget(BYTES_AT_ONCE), pixels_held=Budget(PIXELS_AT_ONCE))
    saved = time.monotonic()
    try:
        with closing(in_threads(examine, _each(columns, new_M))) as results:
            for path, result in zip(path_N[new_M].tolist(), results, strict=True):
                found.add(path, result.stamp, result.outcome)
                if result.lasting:
                    lasting.add(path, result.stamp, result.outcome)
                reporter.advance()
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(columns.folder, lasting.entries(), reporter)
                    saved = time.monotonic()
    finally:
        _save(columns.folder, lasting.entries(), reporter)
    return found.entries()


@dataclass(frozen=True, slots=True)
class _Examined:
    """What was found out about one image, and whether it will be true as long as the file has this stamp."""

    stamp: Stamp
    outcome: ImageFacts | Fault
    lasting: bool


def _each(columns: Records, index_M: NDArray[np.int64]) -> Iterator[Record]:
    return (columns[index] for index in index_M.tolist())


def _examine(record: Record, bytes_held: Budget, pixels_held: Budget) -> _Examined:
    """Read and decode one image, when memory for it is free."""
    stamp = record.stamp()
    outcome: ImageFacts | Fault
    with bytes_held.part(max(0, stamp.length)):
        try:
            content = record.read()
        except UnreadableImage as error:  # its file may be readable tomorrow
            return _Examined(stamp, Fault(error.kind, error.reason), lasting=False)
        with pixels_held.part(pixel_count(content, record.image)):
            try:
                outcome, lasting = _facts(content, record), True
            except UnreadableImage as error:
                outcome, lasting = Fault(error.kind, error.reason), not _is_out_of_memory(error.__cause__)
    return _Examined(stamp, outcome, lasting and is_settled(stamp) and stamp == record.stamp())


def _facts(content: bytes, record: Record) -> ImageFacts:
    if record.bands:
        return examine_bands(content, record.image, record.bands)
    return examine_image(content, record.image)


def _is_out_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and "nsufficient memory" in str(error))


def is_settled(stamp: Stamp) -> bool:
    """Whether a change after the scan is sure to give the file another time."""
    coarse = stamp.changed % 1_000_000_000 == 0
    return time.time_ns() - stamp.changed > (COARSE if coarse else FINE)


def _save(folder: Path, entries: Entries, reporter: Reporter) -> None:
    """Save entries; where that is not possible, say so once."""
    if not len(entries):
        return
    try:
        save_index(folder, entries)
    except MachineError as error:
        remark = f"what the scan found is not kept, so that the next start scans again: {error.problem}"
        if remark not in _said:
            _said.add(remark)
            reporter.say(remark)
