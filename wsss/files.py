"""Files that appear whole or not at all, and last.

A file is written under a temporary name beside its own, brought to the disk and renamed: what has its final name is
whole, whenever its process was killed and whenever the power failed. Names themselves last from `sync_folder` on.
A disk that refuses is a DiskError, which names the file and the remedy, and leaves no temporary file.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from wsss.errors import MachineError

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""Names of files that are being written, or were when their process was killed."""
MOST_OF_A_NAME = 40
"""Characters of its own name in a temporary one, which must not be too long for the disk."""
REMEDIES = {
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
}

_numbers = count()


class DiskError(MachineError):
    """The disk refuses.

    Args:
        path: what could not be written.
        error: why not.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        self.remedy = REMEDIES.get(error.errno or 0, f"look after the disk of {path.parent}")
        super().__init__(f"{path}: {error.strerror or error}", f"{self.remedy}, then run the same command again")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Inside, what the disk refuses is a DiskError that names this path."""
    try:
        yield
    except OSError as error:
        raise DiskError(path, error) from error


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; it has its name when the context ends well, and is gone when it does not.

    Raises:
        DiskError: it cannot be written, whatever the writer made of that.
    """
    temporary = path.with_name(f".{path.name[:MOST_OF_A_NAME]}.{os.getpid()}{next(_numbers):06}.tmp")
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
    """Write a file that appears whole or not at all; text is UTF-8."""
    with whole(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def sync_file(path: Path) -> None:
    """Bring to the disk what others have written to a file, if it exists."""
    with disk_errors(path), suppress(FileNotFoundError):
        _sync(path)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can."""
    with disk_errors(folder / "."):
        try:
            _sync(folder)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # others: it knows no such thing
                raise


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing in a folder and below; nobody else may write there now."""
    for path in folder.rglob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            with disk_errors(path):
                path.unlink(missing_ok=True)


class _Raw(io.FileIO):
    """Remembers why it could not be written: torch.save raises another error, which does not say."""

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
