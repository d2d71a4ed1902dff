"""The manifest of a folder of label maps: the settings that made it and, once it is complete, its totals.

``make-pseudo`` and ``predict`` write the same kind of folder: ``labels/NAME.png``, perhaps ``scores/NAME.npz`` and
``overlays/NAME.jpg``, a journal with one line an image (``journal.py``), ``config.yaml`` and ``manifest.json``. The
totals in ``counts`` are empty until the work is complete. A plain folder of label maps named after the images is read
as well; it then says nothing of its making.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wsss import __version__
from wsss.data.images import MADE as PARTS
from wsss.data.images import MANIFEST
from wsss.errors import DataError
from wsss.files import sync_folder, write_whole

REMAKE = "run the command again with --overwrite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """What a manifest says of the making of its label maps; None where it does not say.

    The last four are the background rule of pseudo labels, see ``wsss.labels.completion``.
    """

    kind: str = "labels"
    classes: tuple[str, ...] | None = None
    method: str | None = None
    scales: tuple[float, ...] | None = None
    flip: bool | None = None
    crf: bool | None = None
    supervision: tuple[str, ...] | None = None
    background: str | None = None
    exponent: float | None = None
    low: float | None = None
    high: float | None = None

    def threshold(self) -> float | None:
        """The class score at which the background rule of pseudo labels changes, in [0, 1]; None where unknown."""
        if self.background == "band" and self.low is not None and self.high is not None:
            return (self.low + self.high) / 2
        if self.background == "power" and self.exponent is not None and self.exponent > 0:
            return crossing(self.exponent)
        return None


def crossing(exponent: float) -> float:
    """The score ``t`` with ``(1 - t) ** exponent = t``, to three decimals: 0.077 for the published 32."""
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** exponent > middle else (low, middle)
    return round(high, 3)


def settings_digest(settings: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of plain settings; the order of the keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def write_manifest(
    out: Path, settings: Mapping[str, Any], counts: Mapping[str, Any], choices: Mapping[str, Any] | None = None
) -> None:
    """Write the manifest; with ``counts``, which say that the work is complete, all names in the folder are synced.

    ``choices`` are facts of the machine and the data (`choices.py`), which are never compared.
    """
    manifest = {"wsss": __version__, **settings, "choices": dict(choices or {}), "counts": dict(counts)}
    if counts:
        for folder in (path for part in PARTS for path in (out / part, *(out / part).rglob("*")) if path.is_dir()):
            sync_folder(folder)
    write_whole(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")  # ASCII: names of any bytes survive
    sync_folder(out)


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        DataError: there is none, or it is broken.
    """
    path = out / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})", REMAKE) from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: is no manifest", REMAKE)
    return manifest


def is_complete(out: Path) -> bool:
    """Whether the manifest of a folder says that the work is complete."""
    return (out / MANIFEST).is_file() and bool(read_manifest(out).get("counts"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Where the label maps and the scores of a prediction lie, and how they were made."""

    labels: Path
    scores: Path
    making: Making


def find_predictions(folder: Path) -> Predictions:
    """Find label maps, scores and manifest in OUT, OUT/labels, OUT/scores or a plain folder of files.

    Raises:
        DataError: no such folder, it is a run, or its manifest is unreadable.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of predictions", f"ls {folder.parent}")
    root = made_in(folder)
    if (root / "run.json").is_file():
        raise DataError(f"{root} is a run, no folder of predictions", f"wsss predict {root} DATA --split val -o MASKS")
    labels, scores = root / "labels", root / "scores"
    return Predictions(
        labels=labels if labels.is_dir() else root,
        scores=scores if scores.is_dir() else root,
        making=read_making(root),
    )


def made_in(folder: Path) -> Path:
    """The folder with the manifest: this one or, of OUT/labels and OUT/scores, OUT."""
    inner = folder.name in PARTS and (folder.parent / MANIFEST).is_file()
    return folder.parent if inner else folder


def read_making(root: Path) -> Making:
    """What the manifest of a folder says; without one every setting is unknown.

    Raises:
        DataError: it is broken.
    """
    path = root / MANIFEST
    if not path.is_file():
        return Making()
    mend = f"mend {path}, or delete it to score without it"
    try:
        return TypeAdapter(Making).validate_python(json.loads(path.read_bytes()))  # pydantic reads no half surrogates
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors())
        raise DataError(f"{path}: {wrong}", mend) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: Invalid JSON: {error}", mend) from error
