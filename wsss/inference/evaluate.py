"""Score a folder of predictions against the masks of a data set.

Shape suffixes: C present classes, H rows, W columns of the image, h rows, w columns of the score grid.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.data.records import Record, TaggedSet
from wsss.data.truth import read_truth
from wsss.errors import DataError
from wsss.evaluation.confusion import ConfusionMatrix, ThresholdSweep
from wsss.evaluation.errors import ErrorCounts, ErrorKind
from wsss.evaluation.report import ErrorReport, LostPixels, Report, ScoreReport, SizeReport
from wsss.evaluation.sizes import BIN_NAMES, SizeCounts
from wsss.inference.odd_truth import odd_truth
from wsss.inference.pairing import Pair, Work, check_classes, check_size, pair_up, read_ahead
from wsss.outputs.manifest import Making, crossing, find_predictions, made_in
from wsss.outputs.shards import refuse_unfinished

PUBLISHED_THRESHOLD = crossing(32)
"""Class score from which the published background rule (power, exponent 32) chooses the class."""
ORACLE_THRESHOLDS = tuple(step / 100 for step in range(101))
BACKGROUND = "background"

OnProgress = Callable[[int, int], None]
"""Called with (images done, images in all) after each image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredImage:
    """One image of ``evaluate_labels``, scored alone.

    Attributes:
        record: the image.
        label_HW: its label map.
        truth_HW: its mask.
        matrix: pixels by true and predicted class.
        errors: its lost pixels by class and kind of error; None unless requested.
    """

    record: Record
    label_HW: NDArray[np.uint8]
    truth_HW: NDArray[np.uint8]
    matrix: ConfusionMatrix
    errors: ErrorCounts | None

    @classmethod
    def of(
        cls, record: Record, label_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8], classes: int, *, errors: bool
    ) -> ScoredImage:
        """Score an image; ``classes`` counts the background."""
        matrix, counts = ConfusionMatrix(classes), ErrorCounts(classes) if errors else None
        matrix.update(label_HW, truth_HW)
        if counts is not None:
            counts.update(label_HW, truth_HW)
        return cls(record=record, label_HW=label_HW, truth_HW=truth_HW, matrix=matrix, errors=counts)


def evaluate_labels(
    predictions: Path,
    tagged: TaggedSet,
    *,
    errors: bool = False,
    sizes: bool = False,
    missing_as_wrong: bool = False,
    on_progress: OnProgress | None = None,
    on_image: Callable[[ScoredImage], None] | None = None,
) -> Report:
    """Score label maps against the masks of a split.

    Args:
        predictions: see ``find_predictions``.
        tagged: the split; its images without a mask are counted as unscored.
        errors: count the lost pixels by kind of error as well.
        sizes: score by the size of objects as well.
        missing_as_wrong: count every pixel of an image without a prediction as wrong instead of raising.
        on_progress: called after each image.
        on_image: called with each image, in the order of the split; it should not keep the arrays.

    Raises:
        DataError: the split has no masks; a prediction is missing or has another size than its mask; the
            predictions have other classes than the data; a file is unreadable.
    """
    found = find_predictions(predictions)
    refuse_unfinished(made_in(found.labels))
    check_classes(found.making, tagged, predictions)
    work = pair_up(tagged, found.labels, ".png", missing_as_wrong=missing_as_wrong)
    matrix = ConfusionMatrix(len(tagged.classes) + 1)
    counts = ErrorCounts(matrix.num_classes) if errors else None
    by_size = SizeCounts(matrix.num_classes) if sizes else None

    def read(pair: Pair) -> ScoredImage:
        truth_HW = read_truth(tagged, pair.record)
        label_HW = np.full_like(truth_HW, IGNORE_INDEX) if pair.missing else read_mask(pair.prediction)
        check_size(label_HW.shape, truth_HW.shape, pair)
        return ScoredImage.of(pair.record, label_HW, truth_HW, matrix.num_classes, errors=errors)

    for done, image in enumerate(read_ahead(read, work.pairs, 2), start=1):
        matrix.counts += image.matrix.counts
        if counts is not None and image.errors is not None:
            counts.counts += image.errors.counts
        if by_size is not None:
            by_size.update(image.label_HW, image.truth_HW)
        if on_image is not None:
            on_image(image)
        del image  # before the next one is read
        if on_progress is not None:
            on_progress(done, len(work.pairs))
    report = _report(matrix, tagged, found.making, work, threshold_rule="none")
    return replace(
        report,
        errors=None if counts is None else _error_report(counts, tagged),
        sizes=None if by_size is None else _size_report(by_size),
    )


def evaluate_scores(
    predictions: Path,
    tagged: TaggedSet,
    thresholds: Sequence[float] | None = None,
    *,
    fixed_threshold: float | None = None,
    on_progress: OnProgress | None = None,
) -> ScoreReport:
    """Score the seeds of stored class scores, at a fixed background threshold and at the best one.

    A seed pixel gets its strongest class where the score exceeds the threshold, else the background. Scores are stored
    before the CRF, so the report has ``crf=False``.

    Args:
        predictions: see ``find_predictions``.
        tagged: the split; its images without a mask are counted as unscored.
        thresholds: candidates of the oracle; 0.00, 0.01, ... 1.00 by default.
        fixed_threshold: must be chosen without these masks. Default: the threshold of the background rule in the
            manifest of the predictions, else that of the published rule.
        on_progress: called after each image.

    Raises:
        DataError: as for ``evaluate_labels``.
    """
    found = find_predictions(predictions)
    refuse_unfinished(made_in(found.labels))
    if fixed_threshold is None:
        said = found.making.threshold()
        fixed_threshold = PUBLISHED_THRESHOLD if said is None else said
    check_classes(found.making, tagged, predictions)
    work = pair_up(tagged, found.scores, ".npz")
    num_classes = len(tagged.classes) + 1
    sweep = ThresholdSweep(num_classes, ORACLE_THRESHOLDS if thresholds is None else thresholds)
    fixed = ThresholdSweep(num_classes, [fixed_threshold])

    def read(pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
        truth_HW = read_truth(tagged, pair.record)
        scores_Chw, classes_C, size = read_scores(pair.prediction, len(tagged.classes))
        check_size(size, truth_HW.shape, pair)  # before arrays of this size are allocated
        return *strongest_class(scores_Chw, classes_C, size), truth_HW

    for done, image in enumerate(read_ahead(read, work.pairs, 6), start=1):
        sweep.update(*image)
        fixed.update(*image)
        del image  # before the next one is made
        if on_progress is not None:
            on_progress(done, len(work.pairs))
    threshold, oracle = sweep.oracle()
    rule = f"fixed {_number(fixed_threshold)}"
    return ScoreReport(
        fixed=_report(fixed.at(fixed_threshold), tagged, found.making, work, threshold_rule=rule),
        oracle=_report(oracle, tagged, found.making, work, threshold_rule=f"oracle {_number(threshold)}"),
    )


def strongest_class(
    scores_Chw: NDArray[np.float32], classes_C: NDArray[Any], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Upsample scores bilinearly (corners not aligned) and keep the strongest class of every pixel.

    Args:
        scores_Chw: class scores in [0, 1] of the present classes.
        classes_C: their indices into the class names, from 0.
        size: (H, W).

    Returns:
        (H, W) float32 score and (H, W) uint8 class index (1..K); score 0 and class 1 where C is 0.
    """
    best_HW = np.zeros(size, dtype=np.float32)
    class_HW = np.full(size, 1 if classes_C.size == 0 else classes_C[0] + 1, dtype=np.uint8)
    for score_hw, index in zip(scores_Chw, classes_C, strict=True):
        score_HW = cv2.resize(score_hw, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        wins_HW = score_HW > best_HW
        np.copyto(best_HW, score_HW, where=wins_HW)
        class_HW[wins_HW] = index + 1
    return best_HW, class_HW


def read_scores(path: Path, num_foreground: int) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[int, int]]:
    """Scores (C, h, w) in [0, 1] of a stored file, their class indices (C,) and the image size (H, W)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            scores_Chw, classes_C, size = stored["scores"], stored["classes"], stored["size"]
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: unreadable scores ({error})", f"delete {path} and make it again") from error
    fits = scores_Chw.dtype == np.uint8 and scores_Chw.ndim == 3 and classes_C.shape == scores_Chw.shape[:1]
    if not fits or size.shape != (2,) or not np.isin(classes_C, range(num_foreground)).all():
        raise DataError(
            f"{path}: scores {scores_Chw.dtype} {scores_Chw.shape}, classes {classes_C.tolist()} and size"
            f" {size.tolist()}, expected uint8 (C, h, w), C indices in 0..{num_foreground - 1} and (H, W)",
            f"delete {path} and make it again",
        )
    return scores_Chw.astype(np.float32) / 255, classes_C, (int(size[0]), int(size[1]))


def _report(matrix: ConfusionMatrix, tagged: TaggedSet, making: Making, work: Work, *, threshold_rule: str) -> Report:
    read_off_scores = threshold_rule != "none"
    iou_C = matrix.per_class_iou().tolist()
    return Report(
        split=tagged.split,
        kind="seed" if read_off_scores and making.kind != "segmentation" else making.kind,
        method=making.method,
        scales=making.scales,
        flip=making.flip,
        crf=False if read_off_scores else making.crf,
        supervision=making.supervision or None,
        threshold_rule=threshold_rule,
        images=len(work.pairs),
        unscored=work.unscored,
        missing=work.missing,
        mean_iou=matrix.mean_iou(),
        per_class_iou={
            name: None if np.isnan(iou) else iou for name, iou in zip((BACKGROUND, *tagged.classes), iou_C, strict=True)
        },
        pixel_accuracy=matrix.pixel_accuracy(),
        coverage=matrix.coverage(),
        remarks=tuple(odd_truth(matrix, tagged)),
    )


def _error_report(counts: ErrorCounts, tagged: TaggedSet) -> ErrorReport:
    def lost(pixels_E: NDArray[np.int64], share_E: NDArray[np.float64]) -> LostPixels:
        kinds = [kind.name.lower() for kind in ErrorKind]
        return LostPixels(
            pixels=dict(zip(kinds, pixels_E.tolist(), strict=True)),
            shares=dict(zip(kinds, share_E.tolist(), strict=True)),
        )

    names = (BACKGROUND, *tagged.classes)
    return ErrorReport(
        all_classes=lost(counts.counts.sum(axis=0), counts.shares()),
        per_class=dict(zip(names, map(lost, counts.counts, counts.per_class()), strict=True)),
    )


def _size_report(counts: SizeCounts) -> SizeReport:
    def by_bin(share_S: NDArray[np.float64]) -> dict[str, float | None]:
        return {
            name: None if np.isnan(share) else share for name, share in zip(BIN_NAMES, share_S.tolist(), strict=True)
        }

    return SizeReport(
        iou=by_bin(counts.iou()),
        pairs=dict(zip(BIN_NAMES, counts.pairs_S.tolist(), strict=True)),
        recall=by_bin(counts.recall()),
        parts=dict(zip(BIN_NAMES, counts.parts_S.tolist(), strict=True)),
        absent=counts.absent / max(1, counts.scored),
    )


def _number(threshold: float) -> str:
    """Two decimals, or more where the threshold has more."""
    return f"{threshold:.2f}" if round(threshold, 2) == threshold else f"{threshold:g}"
