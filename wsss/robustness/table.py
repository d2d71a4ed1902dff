"""Scores of a suite from the figures of its images: clean, perturbed, and how much of the clean score is kept.

Shape suffixes: N images, K classes, C = K + 1 label channels, R rows of the suite, L blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.evaluation.confusion import ConfusionMatrix
from wsss.evaluation.tagging import tag_map
from wsss.robustness.suites import CLEAN, PLAIN, Row

TARGETS = ("tags", "maps", "masks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One row of the table; shares are in [0, 1], None where they are unknown.

    Attributes:
        kind, level, temperature, threat: see ``suites.Row``.
        tags: mean average precision of the tags.
        maps: mIoU of the seeds.
        masks: mIoU of the decoder's label maps.
        inside, outside: mIoU of the seeds in the patches that were replaced, and in the others.
        capture: of each block; see ``reading.capture``.
        retention: each target divided by that of clean images at the same temperature.
    """

    kind: str
    level: str
    temperature: float
    threat: str
    tags: float | None
    maps: float | None
    masks: float | None
    inside: float | None
    outside: float | None
    capture: tuple[float, ...]
    retention: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The scores of a suite.

    Attributes:
        images: how many were measured, and of these ``scored`` have a mask.
        threshold: class score from which a pixel of a seed has its class.
        scores: the rows, those of clean images first.
    """

    images: int
    scored: int
    threshold: float
    scores: tuple[Score, ...]

    def clean(self, temperature: float = PLAIN) -> Score:
        """The row of clean images."""
        return next(one for one in self.scores if one.kind == CLEAN.kind and one.temperature == temperature)

    def kept(self, target: str, temperature: float = PLAIN) -> float | None:
        """The mean retention of a target over all perturbed rows at a temperature; None where it is unknown."""
        values = [
            one.retention[target] for one in self.scores if one.kind != CLEAN.kind and one.temperature == temperature
        ]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None


def make_table(
    figures: Sequence[Mapping[str, NDArray[Any]]],
    rows: Sequence[Row],
    present_NK: NDArray[np.bool_],
    known_NK: NDArray[np.bool_],
    threshold: float,
) -> Table:
    """The table of a suite; rows that are equal are scored together.

    Args:
        figures: of each image, see ``reading.measure``.
        rows: of the suite.
        present_NK, known_NK: the tags of the images, and which of them are known.
        threshold: see ``Table``.
    """
    places = {row: [r for r, other in enumerate(rows) if other == row] for row in dict.fromkeys(rows)}
    plain = {row: _score(figures, row, at, present_NK, known_NK) for row, at in places.items()}
    clean = {row.temperature: score for row, score in plain.items() if row.kind == CLEAN.kind}
    scores = [
        Score(**{**_shallow(score), "retention": retention(score, clean[row.temperature])})
        for row, score in plain.items()
    ]
    scored = sum(bool(one["seeds"].any()) for one in figures)
    return Table(images=len(figures), scored=scored, threshold=threshold, scores=tuple(scores))


def retention(score: Score, clean: Score) -> dict[str, float | None]:
    """Each target as a share of its clean value; None where one is unknown or the clean value is 0."""
    pairs = {target: (getattr(score, target), getattr(clean, target)) for target in TARGETS}
    return {target: None if None in pair or not pair[1] else pair[0] / pair[1] for target, pair in pairs.items()}


def corruption_error(table: Table, other: Table, target: str) -> float | None:
    """FAN's mean corruption error of one network relative to another (Zhou et al., arXiv 2204.12451).

    For each kind of perturbation the sum over its levels of 1 - score, divided by the same sum of the other network;
    the mean over kinds. Below 1 the network loses less than the other. None where a score is unknown.
    """
    errors: dict[str, list[list[float | None]]] = {}
    for one, two in zip(_plain_rows(table), _plain_rows(other), strict=True):
        of_kind = errors.setdefault(one.kind, [])
        of_kind.append([getattr(one, target), getattr(two, target)])
    ratios = []
    for pairs in errors.values():
        if any(value is None for pair in pairs for value in pair):
            return None
        mine, theirs = (sum(1 - value for value in column if value is not None) for column in zip(*pairs, strict=True))
        ratios.append(mine / theirs if theirs else math.nan)
    return _known(float(np.mean(ratios)) if ratios else math.nan)


def _plain_rows(table: Table) -> list[Score]:
    return [one for one in table.scores if one.kind != CLEAN.kind and one.temperature == PLAIN]


def _score(
    figures: Sequence[Mapping[str, NDArray[Any]]],
    row: Row,
    at: Sequence[int],
    present_NK: NDArray[np.bool_],
    known_NK: NDArray[np.bool_],
) -> Score:
    """The scores of some rows together, without retention."""

    def total(name: str) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = sum(one[name][at].astype(np.int64).sum(axis=0) for one in figures)
        return counts

    logits_NK = np.concatenate([np.stack([one["logits"][r] for one in figures]) for r in at])
    times = (len(at), 1)
    captured_ML = np.concatenate([one["capture"][at] for one in figures])
    seeds, part = total("seeds"), total("part")
    return Score(
        kind=row.kind,
        level=row.level,
        temperature=row.temperature,
        threat=row.threat,
        tags=_known(tag_map(logits_NK, np.tile(present_NK, times), np.tile(known_NK, times))),
        maps=mean_iou(seeds),
        masks=mean_iou(total("masks")),
        inside=mean_iou(part),
        outside=mean_iou(seeds - part) if part.any() else None,
        capture=() if np.isnan(captured_ML).all() else tuple(np.nanmean(captured_ML, axis=0).tolist()),
        retention={},
    )


def mean_iou(counts: NDArray[np.int64]) -> float | None:
    """MIoU of counts (C, C + 1); None where nothing was counted."""
    matrix = ConfusionMatrix(len(counts))
    matrix.counts = counts
    return _known(matrix.mean_iou())


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _shallow(score: Score) -> dict[str, Any]:
    return {field.name: getattr(score, field.name) for field in fields(score)}
