"""The manifest of a folder of label maps: what made it, so that a figure can say what it is.

``make-pseudo`` and ``predict`` write the same kind of folder: ``labels/NAME.png``, perhaps ``scores/NAME.npz`` and
``overlays/NAME.jpg``, ``config.yaml`` and ``manifest.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wsss import __version__
from wsss.config import Config, to_yaml
from wsss.errors import DataError, UsageError

FILE = "manifest.json"


def open_output(out: Path, settings: Mapping[str, Any], config: Config, *, overwrite: bool) -> None:
    """Make an output folder, or take one up that the same settings made.

    Args:
        out: the folder.
        settings: all that decides its content, plain values.
        config: written beside it.
        overwrite: take the folder over whatever made it.

    Raises:
        UsageError: the folder is in use by something else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder", "-o FOLDER")
    if out.exists() and not overwrite:
        _check_same(out, settings)
    (out / "labels").mkdir(parents=True, exist_ok=True)
    write_whole(out / "config.yaml", to_yaml(config))
    write_manifest(out, settings, {})


def forget(paths: Iterable[Path]) -> None:
    """Remove the label maps that are made again, so that a run cut short leaves none of the old ones as done."""
    for path in paths:
        path.unlink(missing_ok=True)


def write_manifest(out: Path, settings: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Write the manifest; ``counts`` are empty until the work is done."""
    content = {"wsss": __version__, **settings, "counts": dict(counts)}
    write_whole(out / FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        DataError: there is none, or it is broken.
    """
    try:
        content = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{out / FILE}: cannot be read ({error})", "run the command again with --overwrite") from error
    if not isinstance(content, dict):
        raise DataError(f"{out / FILE}: is no manifest", "run the command again with --overwrite")
    return content


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _check_same(out: Path, settings: Mapping[str, Any]) -> None:
    if not any(out.iterdir()):
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
