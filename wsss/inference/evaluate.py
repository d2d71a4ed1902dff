"""Score a folder of predictions against the masks of a data set.

Shape suffixes: C present classes, H rows, W columns of the image, h rows, w columns of the score grid.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
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
from wsss.inference.odd_truth import TagCounts, odd_classes
from wsss.inference.pairing import Pair, Work, check_classes, check_size, pair_up, read_ahead
from wsss.outputs.manifest import Making, crossing, find_predictions, made_in
from wsss.outputs.shards import refuse_unfinished
from wsss.shard import Shard

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """All that a report is computed from, of a split or of a shard of it.

    Attributes:
        split: its name.
        root: the data folder, for remarks.
        classes: names without the background.
        making: how the predictions were made.
        fixed_threshold: of seeds; None of label maps.
        thresholds: candidates of the oracle; none of label maps.
        counts: int64 arrays by name, which are added over shards.
    """

    split: str
    root: str
    classes: tuple[str, ...]
    making: Making
    fixed_threshold: float | None = None
    thresholds: tuple[float, ...] = ()
    counts: Mapping[str, NDArray[np.int64]]

    def report(self) -> Report | ScoreReport:
        """The report: of seeds where there are thresholds."""
        return self.label_report() if self.fixed_threshold is None else self.score_report()

    def label_report(self) -> Report:
        """The report on label maps."""
        report = _report(self, self.counts["matrix"], threshold_rule="none")
        return replace(
            report,
            errors=_error_report(self.counts["errors"], self.classes) if "errors" in self.counts else None,
            sizes=_size_report(self.counts) if "sizes" in self.counts else None,
        )

    def score_report(self) -> ScoreReport:
        """The report on seeds."""
        assert self.fixed_threshold is not None
        sweep, fixed = (ThresholdSweep(self._num_classes, some) for some in (self.thresholds, [self.fixed_threshold]))
        sweep.joint, fixed.joint = self.counts["sweep"], self.counts["fixed"]
        threshold, oracle = sweep.oracle()
        rule = f"fixed {_number(self.fixed_threshold)}"
        return ScoreReport(
            fixed=_report(self, fixed.at(self.fixed_threshold).counts, threshold_rule=rule),
            oracle=_report(self, oracle.counts, threshold_rule=f"oracle {_number(threshold)}"),
        )

    @property
    def _num_classes(self) -> int:
        return len(self.classes) + 1


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
    """Score label maps against the masks of a split; see ``count_labels``."""
    return count_labels(
        predictions,
        tagged,
        errors=errors,
        sizes=sizes,
        missing_as_wrong=missing_as_wrong,
        on_progress=on_progress,
        on_image=on_image,
    ).label_report()


def count_labels(
    predictions: Path,
    tagged: TaggedSet,
    *,
    errors: bool = False,
    sizes: bool = False,
    missing_as_wrong: bool = False,
    on_progress: OnProgress | None = None,
    on_image: Callable[[ScoredImage], None] | None = None,
    shard: Shard | None = None,
) -> Counted:
    """Count label maps against the masks of a split.

    Args:
        predictions: see ``find_predictions``.
        tagged: the split; its images without a mask are counted as unscored.
        errors: count the lost pixels by kind of error as well.
        sizes: score by the size of objects as well.
        missing_as_wrong: count every pixel of an image without a prediction as wrong instead of raising.
        on_progress: called after each image.
        on_image: called with each image, in the order of the split; it should not keep the arrays.
        shard: the share of the split to count.

    Raises:
        DataError: the split has no masks; a prediction is missing or has another size than its mask; the
            predictions have other classes than the data; a file is unreadable.
    """
    found = find_predictions(predictions)
    refuse_unfinished(made_in(found.labels))
    check_classes(found.making, tagged, predictions)
    work = pair_up(tagged, found.labels, ".png", missing_as_wrong=missing_as_wrong, shard=shard)
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
    more: dict[str, NDArray[np.int64]] = {"matrix": matrix.counts}
    if counts is not None:
        more["errors"] = counts.counts
    if by_size is not None:
        more["sizes"] = np.stack([by_size.both_S, by_size.either_S, by_size.pairs_S, by_size.found_S, by_size.parts_S])
        more["absent"] = np.array([by_size.absent, by_size.scored])
    return _counted(tagged, found.making, work, more)


def evaluate_scores(
    predictions: Path,
    tagged: TaggedSet,
    thresholds: Sequence[float] | None = None,
    *,
    fixed_threshold: float | None = None,
    on_progress: OnProgress | None = None,
) -> ScoreReport:
    """Score the seeds of stored class scores; see ``count_scores``."""
    counted = count_scores(predictions, tagged, thresholds, fixed_threshold=fixed_threshold, on_progress=on_progress)
    return counted.score_report()


def count_scores(
    predictions: Path,
    tagged: TaggedSet,
    thresholds: Sequence[float] | None = None,
    *,
    fixed_threshold: float | None = None,
    on_progress: OnProgress | None = None,
    shard: Shard | None = None,
) -> Counted:
    """Count the seeds of stored class scores, at a fixed background threshold and at the best one.

    A seed pixel gets its strongest class where the score exceeds the threshold, else the background. Scores are stored
    before the CRF, so the report has ``crf=False``.

    Args:
        predictions: see ``find_predictions``.
        tagged: the split; its images without a mask are counted as unscored.
        thresholds: candidates of the oracle; 0.00, 0.01, ... 1.00 by default.
        fixed_threshold: must be chosen without these masks. Default: the threshold of the background rule in the
            manifest of the predictions, else that of the published rule.
        on_progress: called after each image.
        shard: the share of the split to count.

    Raises:
        DataError: as for ``evaluate_labels``.
    """
    found = find_predictions(predictions)
    refuse_unfinished(made_in(found.labels))
    if fixed_threshold is None:
        said = found.making.threshold()
        fixed_threshold = PUBLISHED_THRESHOLD if said is None else said
    check_classes(found.making, tagged, predictions)
    work = pair_up(tagged, found.scores, ".npz", shard=shard)
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
    more = {"sweep": sweep.joint, "fixed": fixed.joint}
    counted = _counted(tagged, found.making, work, more)
    return replace(counted, fixed_threshold=fixed_threshold, thresholds=tuple(sweep.thresholds.tolist()))


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


def _counted(tagged: TaggedSet, making: Making, work: Work, more: Mapping[str, NDArray[np.int64]]) -> Counted:
    tags = TagCounts.of((pair.record for pair in work.pairs), len(tagged.classes))
    images = np.array([len(work.pairs), work.unscored, work.missing])
    counts = {"images": images, "tagged": tags.tagged_K, "unknown": tags.unknown_K, **more}
    return Counted(
        split=tagged.split, root=str(tagged.root), classes=tuple(tagged.classes), making=making, counts=counts
    )


def _report(counted: Counted, matrix_CD: NDArray[np.int64], *, threshold_rule: str) -> Report:
    """The report of a confusion matrix, (C, C + 1)."""
    read_off_scores, making, classes = threshold_rule != "none", counted.making, counted.classes
    matrix = ConfusionMatrix(len(classes) + 1)
    matrix.counts = matrix_CD
    iou_C = matrix.per_class_iou().tolist()
    images, unscored, missing = counted.counts["images"].tolist()
    tags = TagCounts(counted.counts["tagged"], counted.counts["unknown"])
    return Report(
        split=counted.split,
        kind="seed" if read_off_scores and making.kind != "segmentation" else making.kind,
        method=making.method,
        scales=making.scales,
        flip=making.flip,
        crf=False if read_off_scores else making.crf,
        supervision=making.supervision or None,
        threshold_rule=threshold_rule,
        images=images,
        unscored=unscored,
        missing=missing,
        mean_iou=matrix.mean_iou(),
        per_class_iou={
            name: None if np.isnan(iou) else iou for name, iou in zip((BACKGROUND, *classes), iou_C, strict=True)
        },
        pixel_accuracy=matrix.pixel_accuracy(),
        coverage=matrix.coverage(),
        remarks=tuple(odd_classes(matrix, tags, classes, counted.root)),
    )


def _error_report(lost_CE: NDArray[np.int64], classes: Sequence[str]) -> ErrorReport:
    """The report of lost pixels by class and kind of error."""
    counts, names = ErrorCounts(len(classes) + 1), (BACKGROUND, *classes)
    counts.counts = lost_CE

    def lost(pixels_E: NDArray[np.int64], share_E: NDArray[np.float64]) -> LostPixels:
        kinds = [kind.name.lower() for kind in ErrorKind]
        return LostPixels(
            pixels=dict(zip(kinds, pixels_E.tolist(), strict=True)),
            shares=dict(zip(kinds, share_E.tolist(), strict=True)),
        )

    return ErrorReport(
        all_classes=lost(counts.counts.sum(axis=0), counts.shares()),
        per_class=dict(zip(names, map(lost, counts.counts, counts.per_class()), strict=True)),
    )


def _size_report(arrays: Mapping[str, NDArray[np.int64]]) -> SizeReport:
    """The report of what `count_labels` has as "sizes" and "absent"."""
    counts = SizeCounts(num_classes=1)
    counts.both_S, counts.either_S, counts.pairs_S, counts.found_S, counts.parts_S = arrays["sizes"]
    counts.absent, counts.scored = arrays["absent"].tolist()

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
