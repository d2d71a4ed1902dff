"""Find a folder of predictions and what it says of its making.

``make-pseudo`` and ``predict`` write the same artefact: ``labels/NAME.png``, perhaps ``scores/NAME.npz``, and
``manifest.json``. A plain folder of label maps named after the images is one as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wsss.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What predictions say of their making; None where they do not say.

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
        """The class score at which the background rule of pseudo labels hands over, in [0, 1]; None where unknown."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """Where the label maps and the scores of a prediction lie, and how they were made."""

    labels: Path
    scores: Path
    manifest: Manifest


def find_artefact(predictions: Path) -> Artefact:
    """Find label maps, scores and manifest in OUT, OUT/labels, OUT/scores or a plain folder of files.

    Raises:
        DataError: no such folder, it is a run, or its manifest is unreadable.
    """
    if not predictions.is_dir():
        raise DataError(f"{predictions}: no such folder of predictions", f"ls {predictions.parent}")
    root = predictions
    if predictions.name in ("labels", "scores") and (predictions.parent / "manifest.json").is_file():
        root = predictions.parent
    if (root / "run.json").is_file():
        raise DataError(f"{root} is a run, no folder of predictions", f"wsss predict {root} DATA --split val -o MASKS")
    labels, scores = root / "labels", root / "scores"
    return Artefact(
        labels=labels if labels.is_dir() else root,
        scores=scores if scores.is_dir() else root,
        manifest=_read_manifest(root / "manifest.json"),
    )


def _read_manifest(path: Path) -> Manifest:
    """Read the manifest; one that does not exist leaves every setting unknown."""
    if not path.is_file():
        return Manifest()
    try:
        return TypeAdapter(Manifest).validate_json(path.read_bytes())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors())
        raise DataError(f"{path}: {wrong}", f"mend {path}, or delete it to score without it") from error
