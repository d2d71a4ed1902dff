"""The manifest of a folder of label maps: what made it, so that a figure can say what it is.

``make-pseudo`` and ``predict`` write the same kind of folder: ``labels/NAME.png``, perhaps ``scores/NAME.npz`` and
``overlays/NAME.jpg``, ``config.yaml`` and ``manifest.json``. One process at a time writes there. The manifest is in the
end written again, with the SHA-256 of every file, when all of them are on the disk to stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss import __version__
from wsss.config import Config, to_yaml
from wsss.errors import DataError, UsageError
from wsss.files import sweep, sync_folder, write_whole
from wsss.lock import content, locked
from wsss.reporting import Reporter
from wsss.stopping import StopRequest, stop_requests

FILE = "manifest.json"
PARTS = ("labels", "scores", "overlays")
"""Folders of what is made of each image."""
READERS = 4
"""Threads that read files back to hash them."""


@contextmanager
def output_folder(
    out: Path, settings: Mapping[str, Any], config: Config, reporter: Reporter, *, overwritten: Iterable[Path] | None
) -> Iterator[StopRequest]:
    """Hold an output folder: make it, or take up one that the same settings made; lock it; catch the signals to stop.

    Args:
        out: the folder.
        settings: all that decides its content, plain values.
        config: written beside it.
        reporter: of remarks.
        overwritten: label maps to remove, whatever made the folder; None leaves it to what made it.

    Yields:
        The request to stop: `leave_if_asked` after each image.

    Raises:
        UsageError: the folder is in use, by something else or by another process.
        DiskError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder", "-o FOLDER")
    with locked(out, reporter.say):
        open_output(out, settings, config, overwrite=overwritten is not None, overwritten=overwritten or ())
        with stop_requests() as stop:
            yield stop


def open_output(
    out: Path,
    settings: Mapping[str, Any],
    config: Config,
    *,
    overwrite: bool,
    overwritten: Iterable[Path] = (),
) -> None:
    """`output_folder` without the lock and the signals."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder", "-o FOLDER")
    if out.exists() and not overwrite:
        _check_same(out, settings)
    if overwrite:
        (out / FILE).unlink(missing_ok=True)  # until none of the old label maps can pass for a new one
        forget(overwritten)
    sweep(out)
    write_manifest(out, settings, {})  # first: without it the folder would be somebody else's
    write_whole(out / "config.yaml", to_yaml(config))
    (out / "labels").mkdir(exist_ok=True)


def forget(paths: Iterable[Path]) -> None:
    """Remove the label maps that are made again, so that a run cut short leaves none of the old ones as done."""
    for path in paths:
        path.unlink(missing_ok=True)


def write_manifest(out: Path, settings: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Write the manifest; ``counts`` are empty until the work is done, and with them come the hashes of the files."""
    manifest = {"wsss": __version__, **settings, "counts": dict(counts)}
    if counts:
        manifest["sha256"] = file_hashes(out)
        for folder in (path for part in PARTS for path in (out / part, *(out / part).rglob("*")) if path.is_dir()):
            sync_folder(folder)
    write_whole(out / FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    sync_folder(out)


def file_hashes(out: Path) -> dict[str, str]:
    """SHA-256 of what was made of each image, by its path in the folder, sorted."""
    paths = sorted(path for part in PARTS for path in (out / part).rglob("*") if path.is_file())
    with ThreadPoolExecutor(READERS) as pool:
        hashes = pool.map(lambda path: hashlib.sha256(path.read_bytes()).hexdigest(), paths)
        return {path.relative_to(out).as_posix(): found for path, found in zip(paths, hashes, strict=True)}


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        DataError: there is none, or it is broken.
    """
    try:
        manifest = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{out / FILE}: cannot be read ({error})", "run the command again with --overwrite") from error
    if not isinstance(manifest, dict):
        raise DataError(f"{out / FILE}: is no manifest", "run the command again with --overwrite")
    return manifest


def _check_same(out: Path, settings: Mapping[str, Any]) -> None:
    if not content(out):
        return
    if not (out / FILE).is_file():
        raise UsageError(f"{out} is in use: it holds other files", "choose another -o, or add --overwrite")
    before = read_manifest(out)
    plain = json.loads(json.dumps(settings))
    differing = [key for key in plain if before.get(key) != plain[key]]
    if differing:
        shown = ", ".join(f"{key} (was {_short(before.get(key))}, now {_short(plain[key])})" for key in differing[:3])
        raise UsageError(f"{out} was made with other settings: {shown}", "choose another -o, or add --overwrite")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
