"""A folder of figures of images, one small file an image: work that was stopped goes on where it was.

``figures/NAME.npz`` holds arrays by name, and what they were made from: the settings, the bytes and tags of the image
and, where it was opened, its mask. A file of anything else counts as not made. ``manifest.json`` holds the settings.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.data.records import Record
from wsss.errors import UsageError
from wsss.files import sweep, write_whole
from wsss.outputs.folder import Source, check_same
from wsss.outputs.lock import content, locked
from wsss.outputs.manifest import settings_digest, write_manifest
from wsss.reporting import Reporter
from wsss.stopping import StopRequest, stop_requests

Figures = dict[str, NDArray[Any]]
"""Arrays by name, of one image."""

MADE_FROM = "made_from"
"""Name, in a file, of the digest of what its figures were made from."""


@dataclass(frozen=True, slots=True)
class FigureFolder:
    """A folder that is held; `held_figures` makes it.

    Attributes:
        out: the folder.
        stop: the request set by a signal; call ``stop.leave_if_asked`` after some images.
    """

    out: Path
    stop: StopRequest
    _settings: Mapping[str, Any]
    _choices: Mapping[str, Any]

    def made_from(self, record: Record, truth_HW: NDArray[np.uint8] | None = None) -> str:
        """Digest of the settings, of the image with its tags and of its mask, where that takes part."""
        source = Source.of(record)
        mask = "" if truth_HW is None else hashlib.sha256(truth_HW.tobytes()).hexdigest()
        parts = [settings_digest(self._settings), source.digest, list(source.tags), mask]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def read(self, name: str, made_from: str) -> Figures | None:
        """The figures of an image; None where there are none that were made from this."""
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                found = {key: stored[key] for key in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
            return None
        return found if str(found.pop(MADE_FROM, "")) == made_from else None

    def write(self, name: str, made_from: str, figures: Figures) -> None:
        """Write the figures of an image.

        Raises:
            DiskError: the file cannot be written.
        """
        packed = io.BytesIO()
        np.savez_compressed(packed, **figures, **{MADE_FROM: np.array(made_from)})  # type: ignore[arg-type]  # its stub
        write_whole(self._path(name), packed.getvalue())

    def complete(self, counts: Mapping[str, Any]) -> None:
        """Write the manifest of a folder whose images are all done."""
        write_manifest(self.out, self._settings, counts, self._choices)

    def _path(self, name: str) -> Path:
        return self.out / "figures" / f"{name}.npz"


@contextmanager
def held_figures(
    out: Path, settings: Mapping[str, Any], reporter: Reporter, *, overwrite: bool, choices: Mapping[str, Any]
) -> Iterator[FigureFolder]:
    """Hold a folder of figures: make it, or take one that the same settings made; lock it; catch the signals to stop.

    Args:
        out: the folder.
        settings: all that decides the figures except the images; plain values.
        reporter: of remarks.
        overwrite: whatever made the folder.
        choices: what the command chose by itself (`choices.py`); kept in the manifest, never compared.

    Raises:
        UsageError: the folder is in use, by something else or by another process.
        DiskError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder", "-o FOLDER")
    with locked(out, reporter.say):
        if content(out) and not overwrite:
            check_same(out, settings)
        sweep(out)
        write_manifest(out, settings, {}, choices)
        with stop_requests() as stop:
            yield FigureFolder(out, stop, settings, choices)
