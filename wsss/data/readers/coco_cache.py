"""What was read of large COCO files, kept beside the image index in the user's cache folder.

A kept file is used while length and times of the COCO file are the same; one that is damaged is ignored.
"""

from __future__ import annotations

import json
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wsss.data.findings import BadData, Note
from wsss.data.index_file import index_path
from wsss.data.readers.coco_file import CocoFile, read_coco
from wsss.errors import MachineError
from wsss.files import whole
from wsss.reporting import Reporter

VERSION = 3
LEAST = 2**23
"""Smaller files are read again in less than a second."""
COLUMNS = {"rows": "i", "kinds": "i", "flags": "b", "starts": "q", "lengths": "i"}


def open_coco(path: Path, note: Note, reporter: Reporter | None = None) -> CocoFile:
    """As ``read_coco``; a large file without faults is scanned once."""
    about = _about(path)
    if about is None:
        return read_coco(path, note)
    kept = _load(path, about)
    if kept is not None:
        return kept
    faults: list[BadData] = []

    def count(error: BadData) -> None:
        faults.append(error)
        note(error)

    found = read_coco(path, count, reporter)
    if not faults and _about(path) == about:
        with suppress(MachineError, OSError):  # no cache folder: it is scanned again next time
            _save(found, about)
    return found


def _about(path: Path) -> str | None:
    """What must be equal for a kept file to be used; None for a file that is not kept."""
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_size < LEAST:
        return None
    return json.dumps([VERSION, str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns])


def _save(found: CocoFile, about: str) -> None:
    plain = {
        "images": found.images,
        "categories": list(found.categories.items()),
        "ids": found.ids,
        "attributes": found.attributes,
        "url": found.url,
    }
    with whole(index_path(found.path)) as file:
        contents: dict[str, Any] = {name: np.frombuffer(getattr(found, name), kind) for name, kind in COLUMNS.items()}
        contents["about"] = np.frombuffer(about.encode(), np.uint8)
        contents["plain"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        np.savez(file, **contents)


def _load(path: Path, about: str) -> CocoFile | None:
    try:
        with index_path(path).open("rb") as content, np.load(content, allow_pickle=False) as file:
            if bytes(file["about"]).decode() != about:
                return None
            plain = json.loads(bytes(file["plain"]))
            columns = {name: array(kind, file[name].astype(kind).tobytes()) for name, kind in COLUMNS.items()}
        return CocoFile(
            path=path,
            images=[(key, name, None if size is None else (size[0], size[1])) for key, name, size in plain["images"]],
            categories={key: (name, above) for key, (name, above) in plain["categories"]},
            ids=plain["ids"],
            attributes=plain["attributes"],
            url=plain["url"],
            **columns,
        )
    except Exception:  # a damaged file raises many types of errors
        return None
