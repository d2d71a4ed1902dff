"""The file that keeps what a scan found out about the images of a folder, in the user's cache folder.

``$XDG_CACHE_HOME/wsss/index/`` or ``~/.cache/wsss/index/`` has one file for each scanned folder. Deleting one costs no
more than a scan. Several processes may scan at once: a file is replaced as a whole, and the last one to write adds what
it found to what it reads there. A file that is damaged, or was written with other versions of the decoders, is ignored.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
import PIL

from wsss.data.entries import ENTRY, Entries, Fault
from wsss.data.findings import KINDS
from wsss.errors import MachineError
from wsss.files import whole

VERSION = 3
"""Of the file format and of the rules of ``wsss.data.facts``."""
MOST_FILES = 1000
"""Folders that are remembered, at most; the file that was written first goes first."""


def index_path(folder: Path) -> Path:
    """The file for a folder, which is the same under every name of that folder.

    Raises:
        MachineError: the user has no cache folder.
    """
    name = blake2b(os.fsencode(folder.resolve()), digest_size=16).hexdigest()
    return _cache_folder() / f"{name}.npz"


def load_index(folder: Path) -> Entries:
    """The entries of a folder, sorted by path; none where they are not kept or cannot be read."""
    try:
        with index_path(folder).open("rb") as content, np.load(content, allow_pickle=False) as file:
            if bytes(file["about"]) != _about(folder):
                return Entries.empty()
            faults = tuple(Fault(str(kind), str(reason)) for kind, reason in json.loads(bytes(file["faults"])))
            entries = Entries(file["rows"], faults)
    except Exception:  # a damaged file raises many types of errors
        return Entries.empty()
    return entries if _is_sound(entries) else Entries.empty()


def save_index(folder: Path, entries: Entries) -> None:
    """Add entries to those that are kept for a folder; newer ones replace older ones of the same path.

    Raises:
        MachineError: there is no cache folder, or it cannot be written.
    """
    path = index_path(folder)
    kept = load_index(folder).joined(entries).by_path()
    faults = json.dumps(kept.faults).encode()
    with whole(path) as file:
        np.savez(file, about=_bytes(_about(folder)), rows=kept.rows_N, faults=_bytes(faults))
    _drop_oldest(path.parent)


def _cache_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise MachineError("no home folder", "set HOME or XDG_CACHE_HOME") from error
    return cache / "wsss" / "index"


def _about(folder: Path) -> bytes:
    """What must be equal for a file to be used: an image may be readable for other versions of the decoders."""
    about = {"version": VERSION, "opencv": cv2.__version__, "pillow": PIL.__version__, "folder": str(folder.resolve())}
    return json.dumps(about).encode()


def _bytes(content: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(content, np.uint8)


def _is_sound(entries: Entries) -> bool:
    """Whether the rows have the right form and order, and point to faults that exist."""
    rows_N, faults = entries.rows_N, entries.faults
    if rows_N.dtype != ENTRY or rows_N.ndim != 1 or not all(fault.kind in KINDS for fault in faults):
        return False
    path_N, fault_N = rows_N["path"], rows_N["fault"]
    return bool((path_N[1:] > path_N[:-1]).all() and (fault_N >= -1).all() and (fault_N < len(faults)).all())


def _drop_oldest(cache: Path) -> None:
    """Keep ``MOST_FILES`` files."""
    with suppress(OSError):  # another process may drop them at the same time
        files = [(entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(cache)]
        for _, path in sorted(files)[:-MOST_FILES]:
            Path(path).unlink(missing_ok=True)
