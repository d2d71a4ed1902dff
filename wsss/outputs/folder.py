"""The manifest of a folder of label maps: what made it, so that a figure can say what it is.

``make-pseudo`` and ``predict`` write the same kind of folder: ``labels/NAME.png``, perhaps ``scores/NAME.npz`` and
``overlays/NAME.jpg``, ``config.yaml`` and ``manifest.json``. One process at a time writes there. The manifest is in the
end written again, with the SHA-256 of every file, when all of them are on the disk to stay.

A folder that was cut short, or whose images have become more, is gone on with. The manifest holds what each label map
was made from (its image's tags, the sizes of the files), so one whose tags or image have changed since is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wsss import __version__
from wsss.config import Config, to_yaml
from wsss.data.findings import first_few
from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.data.records import Record
from wsss.errors import DataError, UsageError
from wsss.files import sweep, sync_folder, write_whole
from wsss.outputs.lock import content, locked
from wsss.outputs.provenance import LABEL_MAPS, Supervision
from wsss.reporting import Reporter
from wsss.stopping import StopRequest, stop_requests

FILE = "manifest.json"
PARTS = ("labels", "scores", "overlays")
"""Folders of what is made of each image."""
READERS = 4
"""Threads that read files back, to hash them and to count their pixels."""


@contextmanager
def output_folder(
    out: Path,
    settings: Mapping[str, Any],
    sources: Mapping[str, str],
    config: Config,
    reporter: Reporter,
    *,
    overwrite: bool,
) -> Iterator[StopRequest]:
    """Hold an output folder: make it, or take up one that the same settings made; lock it; catch the signals to stop.

    Args:
        out: the folder.
        settings: all that decides its content but the images, plain values.
        sources: what each label map is made from, by the name of its image (`source`).
        config: written beside it.
        reporter: of remarks.
        overwrite: remove the label maps of these images, whatever made the folder.

    Yields:
        The request to stop: `leave_if_asked` after each image.

    Raises:
        UsageError: the folder is in use, by something else or by another process.
        DiskError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder", "-o FOLDER")
    with locked(out, reporter.say):
        changed = open_output(out, settings, sources, config, overwrite=overwrite)
        if changed and not overwrite:
            reporter.say(f"{len(changed)} images or their tags have changed ({first_few(changed)}); made again")
        with stop_requests() as stop:
            yield stop


def open_output(
    out: Path,
    settings: Mapping[str, Any],
    sources: Mapping[str, str],
    config: Config,
    *,
    overwrite: bool,
) -> list[str]:
    """`output_folder` without the lock and the signals; names of the images whose old label maps are removed."""
    before = {} if overwrite or not out.exists() else _check_same(out, settings)
    there = [name for name in sources if label_path(out, name).is_file()]
    changed = [name for name in there if overwrite or (before and before.get(name) != sources[name])]
    if overwrite:
        (out / FILE).unlink(missing_ok=True)  # until none of the old label maps can pass for a new one
    forget(label_path(out, name) for name in changed)
    sweep(out)
    write_manifest(out, settings, sources, {})  # first: without it the folder would be somebody else's
    write_whole(out / "config.yaml", to_yaml(config))
    (out / "labels").mkdir(exist_ok=True)
    return changed


def label_path(out: Path, name: str) -> Path:
    """Where the label map of an image lies."""
    return out / "labels" / f"{name}.png"


def source(record: Record, *layers: Path | None) -> str:
    """What the label map of a record is made from: its tags, and how long the files of its image and layers are."""
    files = [record.image, *(folder / f"{record.name}.png" for folder in layers if folder is not None)]
    sizes = " ".join(str(file.stat().st_size) for file in files if file.is_file())
    return f"tags {' '.join(map(str, record.tags)) or 'none'}, bytes {sizes}"


def forget(paths: Iterable[Path]) -> None:
    """Remove the label maps that are made again, so that a run cut short leaves none of the old ones as done."""
    for path in paths:
        path.unlink(missing_ok=True)


def write_manifest(
    out: Path, settings: Mapping[str, Any], sources: Mapping[str, str], counts: Mapping[str, Any]
) -> None:
    """Write the manifest; ``counts`` are empty until the work is done, and with them come the hashes of the files."""
    manifest = {"wsss": __version__, **settings, "counts": dict(counts), "sources": dict(sources)}
    if counts:
        manifest["sha256"] = file_hashes(out)
        for folder in (path for part in PARTS for path in (out / part, *(out / part).rglob("*")) if path.is_dir()):
            sync_folder(folder)
    write_whole(out / FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    sync_folder(out)


def count_pixels(out: Path, records: Sequence[Record]) -> dict[str, int]:
    """Pixels of background, foreground and ignored in the label maps of these images."""
    pixels = np.zeros(256, dtype=np.int64)
    with ThreadPoolExecutor(READERS) as pool:
        for label_HW in pool.map(lambda record: read_mask(label_path(out, record.name)), records):
            pixels += np.bincount(label_HW.ravel(), minlength=256)
    background, ignored = int(pixels[0]), int(pixels[IGNORE_INDEX])
    return {"background": background, "foreground": int(pixels.sum()) - background - ignored, "ignored": ignored}


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


def of_labels(labels: Path) -> Supervision:
    """What the label maps of a folder come from, as the manifest beside them says.

    Raises:
        DataError: the manifest is broken.
    """
    out = labels.parent if labels.name == "labels" else labels
    said = read_manifest(out).get("supervision") if (out / FILE).is_file() else None
    return tuple(map(str, said)) if said and isinstance(said, list) else LABEL_MAPS


def _check_same(out: Path, settings: Mapping[str, Any]) -> Mapping[str, str]:
    """The sources of the label maps of a folder that the same settings made."""
    if not content(out):
        return {}
    if not (out / FILE).is_file():
        raise UsageError(f"{out} is in use: it holds other files", "choose another -o, or add --overwrite")
    before = read_manifest(out)
    plain = json.loads(json.dumps(settings))
    differing = [key for key in plain if before.get(key) != plain[key]]
    if differing:
        shown = ", ".join(f"{key} (was {_short(before.get(key))}, now {_short(plain[key])})" for key in differing[:3])
        raise UsageError(f"{out} was made with other settings: {shown}", "choose another -o, or add --overwrite")
    sources = before.get("sources", {})
    if not isinstance(sources, dict):
        raise DataError(f"{out / FILE}: is no manifest", "run the command again with --overwrite")
    return sources


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
