"""Reports of scores, with the settings that are needed to compare one score with another.

These are the split, kind of prediction, scales, flip, CRF, threshold rule and supervision.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class LostPixels:
    """Scored pixels whose class is wrong, by kind of error ("missed", "partial", ...: ``ErrorKind``).

    Attributes:
        pixels: number of pixels of each kind.
        shares: the same divided by their sum, in [0, 1]; NaN where none is lost.
    """

    pixels: dict[str, int]
    shares: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorReport:
    """The kinds of error behind a score, over all classes and for each ("background" first)."""

    all_classes: LostPixels
    per_class: dict[str, LostPixels]


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeReport:
    """Scores by the size of objects, a share of their image ("<1%", "1-5%", "5-20%", ">20%"); see ``SizeCounts``.

    Attributes:
        iou: in [0, 1], over pairs of an image and a class of this size; None where there is none.
        pairs: how many there are.
        recall: share of the connected parts of this size that are found; None where there is none.
        parts: how many there are.
        absent: share of the scored pixels that are predicted as a class that their image does not have.
    """

    iou: dict[str, float | None]
    pairs: dict[str, int]
    recall: dict[str, float | None]
    parts: dict[str, int]
    absent: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The score of one folder of predictions; every share is in [0, 1].

    Attributes:
        split: the split that was scored.
        kind: "pseudo", "segmentation", "seed", or "labels" where the folder has no manifest that says it.
        method: how the class maps were made; None where unknown.
        scales: test scales; None where unknown.
        flip: whether mirrored images were averaged in; None where unknown.
        crf: whether a dense CRF was applied last; None where unknown.
        supervision: the kinds of labels that were learnt from, see ``wsss.outputs.provenance``; None where unknown.
        threshold_rule: "none", "fixed 0.40" or "oracle 0.37" (chosen on the masks that it is scored with).
        images: scored images.
        unscored: images of the split that have no mask.
        missing: scored images without a prediction, every pixel of which counts as wrong.
        mean_iou: over the classes with a non-empty union; NaN where every pixel is ignored.
        per_class_iou: "background" first; None for a class with an empty union.
        pixel_accuracy: share of the pixels whose class is right.
        coverage: share of the pixels that the prediction gives a class; the others count as wrong.
        remarks: what makes the figures doubtful, in words.
        errors: the lost pixels by kind of error; None unless requested.
        sizes: the score by the size of objects; None unless requested.
    """

    split: str
    kind: str
    method: str | None
    scales: tuple[float, ...] | None
    flip: bool | None
    crf: bool | None
    supervision: tuple[str, ...] | None
    threshold_rule: str
    images: int
    unscored: int
    missing: int
    mean_iou: float
    per_class_iou: dict[str, float | None]
    pixel_accuracy: float
    coverage: float
    remarks: tuple[str, ...] = ()
    errors: ErrorReport | None = None
    sizes: SizeReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``: tuples become lists, NaN None; no ``errors`` or ``sizes`` if None."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        for key in ("errors", "sizes"):
            if values[key] is None:
                del values[key]
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreReport:
    """Scores of the seeds of one folder: at a threshold fixed in advance, and at the best threshold (an oracle)."""

    fixed: Report
    oracle: Report

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``: {"fixed": ..., "oracle": ...}."""
        return {"fixed": self.fixed.to_json(), "oracle": self.oracle.to_json()}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
