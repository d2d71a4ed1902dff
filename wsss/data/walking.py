"""Walk through a folder: every file below it is either found or left out for a reason.

Links to folders are followed. A circle is a link to a folder that is being walked, not to one that was walked before,
so that two links to one folder are both followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from wsss.data.findings import BadData, Note, refuse
from wsss.data.near_names import NearNames, spellings

Reason = Literal[
    "hidden",
    "by machines",
    "no photographs",
    "made here",
    "circle",
    "linked too often",
    "link to nothing",
    "unreadable",
]
"""Why a file or a folder is left out."""

MACHINE_FOLDERS = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "@snapshot", "@__thumb", "@transcode", "@tmp"),
        *("#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled", "system volume information"),
        *("found.000", "lost+found", "lost.dir", "__macosx", "network trash folder", "temporary items"),
        *("thumbs.db", "__pycache__", "_vti_cnf", ".thumbnails"),
    }
)
"""Folders that disk stations, operating systems and zip programs make beside the user's own; in lower case."""
MACHINE_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})
"""Files that they make; in lower case."""
MACHINE_STARTS = ("synofile_thumb_", "synophoto_thumb_", "synoindex_", "._")
"""How the names of files begin that disk stations and Macs make; in lower case."""
FILE_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")
"""Names of files; other links that lead to nothing may have led to a folder, which may be called v1.0."""
MOST_VISITS = 16
"""A folder that more links than this lead to is left out from then on: links to links would be followed for ever."""
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
"""Errors that say that there is no such file; all others say that this could not be found out."""

SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a folder is sure to give it another time."""

Prune = Callable[[str, Collection[str]], Mapping[str, Reason]]
"""Given a folder below the start ("" is the start, else it ends in "/") and the names of its files: folders in it that
are left out, and why."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies below a folder.

    Attributes:
        files: paths below it, "/"-separated, each folder sorted.
        left_out: why a file, or a folder with all that is in it, is not among them; by its path.
    """

    files: list[str] = field(default_factory=list)
    left_out: dict[str, Reason] = field(default_factory=dict)

    def why_left_out(self, path: str) -> tuple[str, Reason] | None:
        """The part of a path that was left out, and why; None where no part was."""
        parts = path.split("/")
        starts = ("/".join(parts[: count + 1]) for count in range(len(parts)))
        return next(((start, self.left_out[start]) for start in starts if start in self.left_out), None)


def is_by_machines(name: str, *, folder: bool) -> bool:
    """Whether a program made a folder or a file of this name for itself."""
    lower = name.lower()
    return lower in MACHINE_FOLDERS if folder else lower in MACHINE_FILES or lower.startswith(MACHINE_STARTS)


def machine_name(name: str) -> str:
    """What the names that one program makes have in common: one of ``MACHINE_STARTS``, else the name."""
    lower = name.lower()
    return next((start for start in MACHINE_STARTS if lower.startswith(start)), lower)


def walk(folder: Path, prune: Prune = lambda below, files: {}, *, note: Note = refuse) -> Tree:
    """Find all files below a folder; none is opened.

    Args:
        folder: where to start.
        prune: names further folders that are left out.
        note: called for a folder that cannot be listed; if it returns, that folder is left out.

    Raises:
        DataError: ``note`` raises.
    """
    tree, visits = Tree(), dict[str, int]()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while waiting:
        below, walked = waiting.pop()
        entries = _entries(folder, below, tree, note)
        folders, files = _sorted_out(entries, below, tree)
        tree.files.extend(below + entry.name for entry in files)
        pruned = prune(below, [entry.name for entry in files])
        inner: list[tuple[str, tuple[str, ...]]] = []
        for entry in folders:
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(walked[-1], entry.name)  # noqa: PTH118
            reason = pruned.get(entry.name) or _why_not_again(entry, real, walked, visits)
            if reason is not None:
                tree.left_out[below + entry.name] = reason
            else:
                inner.append((f"{below}{entry.name}/", (*walked, real)))
        waiting += reversed(inner)
    return tree


def _entries(folder: Path, below: str, tree: Tree, note: Note) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name; a folder that cannot be listed is left out and noted."""
    place = os.path.join(folder, below)  # noqa: PTH118 (speed)
    try:
        with os.scandir(place) as listed:
            return sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        tree.left_out[below.rstrip("/") or "."] = "unreadable"
        note(unreadable_folder(Path(place), error))
        return []


def _sorted_out(
    entries: list[os.DirEntry[str]], below: str, tree: Tree
) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """The folders and the files among some entries; those that are left out are added to the tree."""
    folders, files = [], []
    for entry in entries:
        try:
            is_folder, is_lost = entry.is_dir(), entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110
        except OSError:  # of the disk of a linked folder
            is_folder, is_lost = False, True
        if is_by_machines(entry.name, folder=is_folder):
            tree.left_out[below + entry.name] = "by machines"
        elif entry.name[0] == ".":
            tree.left_out[below + entry.name] = "hidden"
        elif is_folder:
            folders.append(entry)
        elif is_lost and not FILE_ENDING.search(entry.name):  # a lost image is named when it is read
            tree.left_out[below + entry.name] = "link to nothing"
        else:
            files.append(entry)
    return folders, files


def _why_not_again(
    entry: os.DirEntry[str], real: str, walked: tuple[str, ...], visits: dict[str, int]
) -> Reason | None:
    """Why a folder is not walked that a link, or a folder behind one, leads to; None where it is."""
    if real in walked:
        return "circle"
    if entry.is_symlink():
        visits[real] = visits.get(real, 0) + 1
    return "linked too often" if visits.get(real, 0) > MOST_VISITS else None


def unreadable_folder(folder: Path, error: OSError) -> BadData:
    """The error for a folder that this user may not list, or whose disk answers with an error."""
    what = f"this folder cannot be listed ({error.strerror or error})"
    fix = f"chmod u+rx {folder}  # or ask its owner, or move it out of the data"
    return BadData.at("folder-unreadable", folder, what, fix)


def is_file(path: Path) -> bool:
    """Whether there is a regular file, or a link to one.

    Raises:
        DataError: that cannot be found out, since a folder above it may not be read.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one.

    Raises:
        DataError: that cannot be found out, since a folder above it may not be read.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of any kind.

    Raises:
        DataError: that cannot be found out, since a folder above it may not be read.
    """
    return _mode(path) is not None


def _mode(path: Path) -> int | None:
    """The mode bits of a file; None where there is none."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise unreadable_folder(path.parent, error) from error
    except ValueError:  # a zero byte in the name
        return None


def names_in(folder: Path) -> tuple[str, ...]:
    """Names in a folder, sorted, without hidden ones and those of ``MACHINE_FILES``; none where there is no folder.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        changed = folder.stat().st_mtime_ns
        if time.time_ns() - changed < SETTLED:
            _names_in.cache_clear()
        return _names_in(str(folder), changed)
    except OSError as error:
        if error.errno in ABSENT:
            return ()
        raise unreadable_folder(folder, error) from error


@lru_cache(maxsize=4)
def _names_in(folder: str, changed: int) -> tuple[str, ...]:
    """The same of a folder that was last changed at a time in nanoseconds; a large one is listed once."""
    names = (name for name in os.listdir(folder) if name[0] != ".")  # noqa: PTH208 (names alone)
    return tuple(sorted(name for name in names if not is_by_machines(name, folder=False)))


def conventional(folder: Path, name: str) -> Path:
    """The path of a file or folder of a conventional name, which may be written in another case.

    ``folder / name`` where that exists, or where there is none of this name in any case or more than one.

    Raises:
        DataError: the folder cannot be listed.
    """
    if _mode(folder / name) is not None:
        return folder / name
    same = [other for other in names_in(folder) if other.casefold() == name.casefold()]
    return folder / (same[0] if len(same) == 1 else name)


def spelled(folder: Path, name: str) -> Path:
    """The path of a file in a folder, in the Unicode form in which it is there; as written where it is in none."""
    if name.isascii():
        return folder / name
    return next((folder / form for form in spellings(name) if _mode(folder / form) is not None), folder / name)


def near_file(folder: Path, name: str) -> str:
    """The file below a folder whose name is nearest, in brackets, with what differs; empty where none is near."""
    return NearNames(walk(folder, note=lambda error: None).files).ask(name)
