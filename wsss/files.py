"""Atomic, durable file writes.

A file is written under a temporary name in its own folder, synced to the disk (``fsync``) and renamed. So a file with
its final name is complete, even if the process was killed or the power failed. The rename itself is durable only after
`sync_folder`. An error of the disk becomes a DiskError, which names the file and the remedy; the temporary file is
removed.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from wsss.errors import MachineError

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""Names of temporary files, which are being written or were left by a process that was killed."""
MOST_OF_A_NAME = 40
"""Characters of the final name in the temporary one, so that it stays within the length that file systems allow."""
REMEDIES = {
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOENT: "put its folder back, which was removed or renamed",
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.ENAMETOOLONG: "shorten the names",
    errno.ENOTDIR: "choose another folder: a part of this path is a file",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose a disk that takes larger ones",
    errno.EMFILE: "raise the number of open files (ulimit -n 4096)",
    errno.ENFILE: "close other programs: this machine has too many open files",
    errno.ESTALE: "look at the network disk: this folder was replaced, or its server started anew",
    errno.EISDIR: "choose another folder: there is a folder of this name",
}

_host = int.from_bytes(os.urandom(4))
"""Part of the names of temporary files: processes of other machines may have the same process id."""
_numbers = count()


class DiskError(MachineError):
    """A file could not be written or synced.

    Args:
        path: the file.
        error: the error of the operating system.
    """

    kind = "disk"

    def __init__(self, path: Path, error: OSError) -> None:
        self.remedy = REMEDIES.get(error.errno or 0, f"check the disk of {path.parent}")
        if error.errno == errno.ENOSPC and _holds_no_more_files(path.parent):
            self.remedy = "remove files there: the disk has space, but takes no more of them (df -i)"
        super().__init__(f"{path}: {error.strerror or error}", f"{self.remedy}, then run the same command again")


def _holds_no_more_files(folder: Path) -> bool:
    """Whether the disk of a folder has space, but all of its inodes are used."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # Windows has no statvfs
        return False
    return found.f_files > 0 and found.f_favail == 0 and found.f_bavail > 0


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError raised inside into a DiskError that names this path."""
    try:
        yield
    except OSError as error:
        raise DiskError(path, error) from error


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for an atomic write: renamed to ``path`` at the end of the context, removed after an exception.

    Raises:
        DiskError: it cannot be written, even if the writer turned that into another exception.
    """
    temporary = path.with_name(f".{path.name[:MOST_OF_A_NAME]}.{os.getpid()}{_host:010}{next(_numbers):06}.tmp")
    raw: _Raw | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _Raw(temporary, "w")
        with io.BufferedWriter(raw) as file:
            yield cast(IO[bytes], file)
            file.flush()
            os.fsync(raw.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        refusal = raw.refusal if raw is not None and raw.refusal is not None else error
        if isinstance(refusal, OSError):
            raise DiskError(path, refusal) from refusal
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file atomically; text is encoded as UTF-8."""
    with whole(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill: renamed to ``path`` at the end of the context, removed after an exception.

    ``path`` may be there if it is empty.

    Raises:
        DiskError: it cannot be written, or ``path`` holds something.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name[:MOST_OF_A_NAME]}.{os.getpid()}{_host:010}{next(_numbers):06}.tmp")
    try:
        with disk_errors(path):
            temporary.mkdir(parents=True)
        yield temporary
        with disk_errors(path):
            if path.is_dir():
                path.rmdir()
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Sync a file that other code has written to the disk, if it exists."""
    with disk_errors(path), suppress(FileNotFoundError):
        _sync(path)


def sync_folder(folder: Path) -> None:
    """Sync a folder, which makes renames in it durable; without effect where the file system cannot sync folders."""
    with disk_errors(folder / "."):
        try:
            _sync(folder)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # other errors: it cannot sync folders
                raise


def sweep(folder: Path) -> None:
    """Remove temporary files from a folder and its subfolders; no process may be writing there."""
    for path in files_below(folder):
        if TEMPORARY.fullmatch(path.name):
            with disk_errors(path):
                path.unlink(missing_ok=True)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, sorted in each; none where there is no such folder.

    Raises:
        DiskError: a folder cannot be listed, which ``Path.rglob`` passes over in silence.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise DiskError(Path(error.filename), error)

    for inner, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            yield Path(inner, name)


class _Raw(io.FileIO):
    """Keeps the OSError of a failed write, because torch.save replaces it by an error without the cause."""

    refusal: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.refusal = error
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
