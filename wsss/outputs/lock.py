"""A lock that lets one process at a time write to a folder, or several that share the work.

It is an operating-system lock (``fcntl.lockf``) on the file ``.lock`` in the folder, so it is released when its process
ends, however it ends. Forked loader processes do not hold it. The file contains the process id and host of the owner,
for error messages.

Processes that share the work hold the lock together, and each holds a lock of its own beside it, ``.lock.I-of-N``. They
leave ``.lock`` behind: removing it would let a process lock a file that is no longer there.

The owner must not open that file a second time: closing it would release the lock.

The package filelock does not say who holds a lock, leaves its file behind, and where a disk has no locks it writes
markers that a killed process leaves behind.
"""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsss.errors import UsageError
from wsss.files import TEMPORARY, DiskError, disk_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
HELD = (errno.EACCES, errno.EAGAIN)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""Errors of file systems that have no locks."""
MOST_TRIES = 100
"""Of opening the lock file, while other processes remove it."""

_held: set[tuple[int, Path]] = set()
"""(process id, lock file) of the locks held here; the kernel does not stop a process from locking a file twice."""


@contextmanager
def locked(folder: Path, say: Callable[[str], None], *, name: str = FILE, together: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, which is created if it does not exist.

    Args:
        folder: the lock covers everything below it.
        say: called with a warning if the file system has no locks; the work then continues without one.
        name: of the lock file.
        together: whether other processes that say so may hold it at the same time.

    Raises:
        UsageError: another process, or this one, already holds the lock.
        DiskError: the folder cannot be written.
    """
    path = folder.resolve() / name
    mine = (os.getpid(), path)
    if mine in _held:
        raise _in_use(folder, "this process")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path, folder, say, together)
    _held.add(mine)
    try:
        with disk_errors(path):
            os.ftruncate(descriptor, 0)
            if not together:
                os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
        yield
    finally:
        _held.discard(mine)
        if not together:
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def content(folder: Path) -> set[str]:
    """Names in a folder, without lock files and the temporary files of killed processes."""
    names = (path.name for path in folder.iterdir())
    return {name for name in names if not name.startswith(FILE) and not TEMPORARY.fullmatch(name)}


def refuse_held(folder: Path) -> None:
    """Check that no other process holds the lock of a folder.

    Raises:
        UsageError: one does.
    """
    path = folder.resolve() / FILE
    if path.is_file() and (os.getpid(), path) not in _held and os.access(path, os.W_OK):
        with locked(folder, lambda text: None):
            pass


def _lock(path: Path, folder: Path, say: Callable[[str], None], together: bool) -> int:
    """Open and lock the lock file; returns its file descriptor."""
    for _ in range(MOST_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _ask_kernel(descriptor, path, folder, say, together)
            if _is_there(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous owner removed the file between opening and locking
    raise DiskError(path, OSError(errno.ESTALE, "a file there changes its identity, so that it cannot be locked"))


def _ask_kernel(descriptor: int, path: Path, folder: Path, say: Callable[[str], None], together: bool) -> None:
    without = f"{folder} lies on a disk without locks: make sure that no other process writes there"
    if fcntl is None:
        say(without)
        return
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            raise _in_use(folder, _owner(path)) from None
        if error.errno not in NO_LOCKS:
            raise
        say(without)


def _is_there(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, TypeError, KeyError):  # the owner has not written them yet, or there are several
        return "the processes of its shards" if any(path.parent.glob(f"{FILE}.*")) else "another process"


def _in_use(folder: Path, owner: str) -> UsageError:
    return UsageError(f"{folder} is in use by {owner}", "wait until that ends, or choose another -o")
