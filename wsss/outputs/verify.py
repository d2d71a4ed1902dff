"""Whether files are as they were written: those of a folder of label maps by its journal, others by ``SHA256SUMS``."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wsss.data.facts import image_digest
from wsss.data.findings import BadData
from wsss.data.images import MANIFEST
from wsss.data.masks import read_mask
from wsss.data.threads import in_threads
from wsss.data.writers.webdataset import SUMS
from wsss.errors import DataError
from wsss.files import TEMPORARY, disk_errors, files_below
from wsss.outputs.folder import PNG_END, SUFFIXES
from wsss.outputs.journal import JOURNAL, Entry, read_journal, read_journals
from wsss.outputs.manifest import read_manifest, settings_digest
from wsss.outputs.merge import NOT_SETTINGS
from wsss.outputs.shards import journal_name, names_digest, read_records
from wsss.reporting import Reporter

Fault = Literal["missing", "changed", "cut short", "unknown"]
FAULTS: tuple[Fault, ...] = ("missing", "changed", "cut short", "unknown")
CORRECTED = "a readable label map, which is wanted if somebody corrected it"
JPEG_END = b"\xff\xd9"


class NotAsWritten(DataError):
    """Files are missing, changed, cut short or unknown."""

    kind = "verify"


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is not as it was written.

    Attributes:
        fault: what is wrong.
        path: of the file, in the folder.
        why: more words, or "".
    """

    fault: Fault
    path: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.fault}: {self.path}" + (f" ({self.why})" if self.why else "")


@dataclass(slots=True)
class Verified:
    """What was found in a folder.

    Attributes:
        right: files that are as they were written.
        findings: all others.
        remarks: what could not be compared.
    """

    right: int = 0
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note(self, finding: Finding | None) -> None:
        """Count a file: None where it is right."""
        if finding is None:
            self.right += 1
        else:
            self.findings.append(finding)

    def add(self, other: Verified, folder: str) -> None:
        """Add what was found in a folder inside."""
        self.right += other.right
        self.findings += [Finding(one.fault, f"{folder}/{one.path}", one.why) for one in other.findings]
        self.remarks += [f"{folder}: {one}" for one in other.remarks]

    def counts(self) -> dict[str, int]:
        """How many files are right, and have each fault."""
        return {"right": self.right} | {fault: sum(one.fault == fault for one in self.findings) for fault in FAULTS}


def verify_labels(out: Path, reporter: Reporter, *, sources: bool = True) -> Verified:
    """Compare a folder of label maps with its journals, records of shards and manifest.

    Args:
        out: the folder.
        reporter: of the progress.
        sources: whether the images are read too that the label maps were made from.

    Raises:
        DiskError: a file cannot be read.
    """
    found = Verified()
    entries = read_journal(out, lambda text: found.note(Finding("cut short", JOURNAL, text)))
    _check_manifest(out, entries, found)
    _check_shards(out, found)
    files = [(path, digest) for entry in entries.values() for path, digest in entry.files.items()]
    images = [entry for entry in entries.values() if sources]
    reporter.begin("verifying", len(files) + len(images))
    for finding in in_threads(lambda file: compare(out, *file), files):
        found.note(finding)
        reporter.advance()
    members = 0
    for finding in in_threads(_compare_source, images):
        if finding is MEMBER:
            members += 1
        else:
            found.note(finding)
        reporter.advance()
    if members:
        found.remarks.append(f"{members} images lie in tar shards and were not read: verify the packed data")
    known = {path for path, _ in files}
    for path in (file for part in SUFFIXES for file in files_below(out / part)):
        name = path.relative_to(out).as_posix()
        if name not in known and not TEMPORARY.fullmatch(path.name):
            found.note(Finding("unknown", name, "no line of the journal names it"))
    return found


def compare(folder: Path, name: str, digest: str) -> Finding | None:
    """Compare a file of a folder with its SHA-256; None where it is equal.

    Raises:
        DiskError: it cannot be read.
    """
    path = folder / name
    with disk_errors(path):
        if not path.is_file():
            return Finding("missing", name)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                return None
    if is_cut(path):
        return Finding("cut short", name)
    return Finding("changed", name, CORRECTED if name.startswith("labels/") and _is_mask(path) else "")


def is_cut(path: Path) -> bool:
    """Whether a file of these kinds lacks its end: PNG, JPEG, tar, and the archives .npz and .pt."""
    if path.suffix in (".npz", ".pt"):
        return not zipfile.is_zipfile(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        end = file.read()
    if path.suffix == ".png":
        return not end.endswith(PNG_END)
    if path.suffix == ".jpg":
        return not end.endswith(JPEG_END)
    return not end or (path.suffix == ".tar" and (size % tarfile.BLOCKSIZE > 0 or bool(end.strip(b"\0"))))


def verify_sums(folder: Path, reporter: Reporter) -> Verified:
    """Compare the files of a folder with its ``SUMS``; tar shards that it does not list are unknown.

    Raises:
        DataError: it cannot be read.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SUMS}: cannot be read ({error})", f"wsss data pack DIR -o {folder}") from error
    found = Verified()
    reporter.begin("verifying", len(sums))
    for finding in in_threads(lambda item: compare(folder, *item), sums.items()):
        found.note(finding)
        reporter.advance()
    for path in sorted(folder.glob("*.tar")):
        if path.name not in sums:
            found.note(Finding("unknown", path.name, f"{SUMS} does not name it"))
    return found


MEMBER = Finding("unknown", "")
"""Stands for an image in a tar shard, whose place the journal does not hold."""


def _compare_source(entry: Entry) -> Finding | None:
    """Compare the image of a label map with the digest of its bytes."""
    path = Path(entry.origin)
    if ".tar:" in entry.origin and not path.exists():
        return MEMBER
    try:
        content = path.read_bytes()
    except OSError as error:
        return Finding("missing", entry.origin, f"the image of {entry.name}: {error.strerror}")
    if image_digest(content) == entry.image:
        return None
    return Finding("changed", entry.origin, f"the image of {entry.name}")


def _check_manifest(out: Path, entries: Mapping[str, Entry], found: Verified) -> None:
    """Compare the manifest with the journal: its settings, and how many images it counts."""
    if not (out / MANIFEST).is_file():
        found.note(Finding("missing", MANIFEST))
        return
    try:
        manifest = read_manifest(out)
    except DataError as error:
        found.note(Finding("changed" if not is_cut_text(out / MANIFEST) else "cut short", MANIFEST, error.problem))
        return
    settings = settings_digest({key: value for key, value in manifest.items() if key not in NOT_SETTINGS})
    others = sum(entry.settings != settings for entry in entries.values())
    counts = manifest.get("counts") or {}
    lost = int(counts.get("images", 0)) - len(entries)
    if others:
        why = f"its settings are not those that made {others} of {len(entries)} images"
        found.note(Finding("changed", MANIFEST, why))
    elif lost <= 0:
        found.note(None)
    if lost > 0:
        found.note(Finding("missing", JOURNAL, f"lines of {lost} images that {MANIFEST} counts"))
    if not counts:
        found.remarks.append("it is unfinished: wsss status says what is left to do")


def _check_shards(out: Path, found: Verified) -> None:
    """Compare the journals of shards that are not merged with their records."""
    for shard, record in read_records(out).items():
        if record.done:
            names = [*read_journals([out / journal_name(shard)])]
            whole = names_digest(names) == record.share_sha256
            why = f"{len(names)} images, {record.share} were made"
            found.note(None if whole else Finding("changed", journal_name(shard), why))


def is_cut_text(path: Path) -> bool:
    """Whether a file of text lacks the end of its last line."""
    with disk_errors(path):
        return not path.read_bytes().endswith(b"\n")


def _is_mask(path: Path) -> bool:
    try:
        read_mask(path)
    except BadData:
        return False
    return True


def each_folder(folder: Path, is_one: Callable[[Path], bool]) -> Iterator[Path]:
    """The folders inside for which this holds, sorted."""
    yield from (path for path in sorted(folder.iterdir()) if path.is_dir() and is_one(path))
