"""Pair the files of predictions with the masks that they are scored against, and read them ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from wsss.data.images import image_size
from wsss.data.records import Record, TaggedSet
from wsss.data.truth import truth_place
from wsss.data.walking import is_file, near_file, spelled
from wsss.errors import DataError
from wsss.outputs.manifest import Making
from wsss.pool import WRITERS, Job, Pool
from wsss.reporting import first_few
from wsss.shard import Shard

READERS = 4
"""Threads that decode files ahead of the counting; decoding releases the interpreter lock."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A prediction and the record whose truth it is compared with; ``where`` names the truth in messages."""

    record: Record
    prediction: Path
    where: Path | str
    missing: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The images to score; numbers of images without a mask (unscored) and of pairs without a prediction (missing)."""

    pairs: list[Pair]
    unscored: int
    missing: int


def pair_up(
    tagged: TaggedSet, folder: Path, suffix: str, *, missing_as_wrong: bool = False, shard: Shard | None = None
) -> Work:
    """Pair masks with predictions, of the whole set or of a shard of it.

    Raises:
        DataError: there is no mask, no prediction or, by default, one is missing. A shard may be without masks.
    """
    masks = [record for record in share_of(tagged, shard) if tagged.has_truth(record)]
    if not masks and shard is None:
        folder_of_masks = tagged.root if tagged.mask_folder is None else tagged.mask_folder
        boxes = "; boxes and other annotations without an outline make no mask" if tagged.of_objects else ""
        images = f"the {len(tagged)} images of split '{tagged.split}'"
        raise DataError(
            f"{folder_of_masks}: no mask of {images}, nothing to score with{boxes}",
            f"put masks there as palette PNGs (NAME.png): ls {folder_of_masks}",
        )
    pairs, missing = [], []
    for record in masks:
        prediction = spelled(folder, f"{record.name}{suffix}")
        where, found = truth_place(tagged, record), is_file(prediction)
        pairs.append(Pair(record=record, prediction=prediction, where=where, missing=not found))
        if pairs[-1].missing:
            missing.append(record)
    if missing and not (missing_as_wrong and (shard is not None or len(missing) < len(pairs))):
        raise _missing_error(missing, len(masks), folder, suffix, tagged.split)
    return Work(pairs=pairs, unscored=len(share_of(tagged, shard)) - len(masks), missing=len(missing))


def share_of(tagged: TaggedSet, shard: Shard | None) -> Sequence[Record]:
    """The records of a shard of a set; all where there is none."""
    return tagged.records if shard is None else shard.part(tagged.records)


def _missing_error(missing: Sequence[Record], expected: int, folder: Path, suffix: str, split: str) -> DataError:
    names = first_few([record.name for record in missing])
    fix = f"make the missing predictions of split '{split}', or choose another folder: ls {folder}"
    if suffix == ".npz" and len(missing) == expected:
        fix = "wsss make-pseudo RUN --data DIR --save-scores -o OUT  # writes the scores"
    elif suffix == ".png" and len(missing) < expected:
        fix = "make these predictions too, or --missing-as-wrong  # counts all of their pixels as wrong"
    near = near_file(folder, f"{missing[0].name}{suffix}")
    hint = f"; {missing[0].name}{suffix}{near}" if near else ""
    return DataError(
        f"{folder}: no NAME{suffix} for {len(missing)} of the {expected} masked images of split '{split}'"
        f" ({names}){hint}; a score must cover all of them",
        fix,
    )


def read_ahead(read: Callable[[Pair], Result], pairs: Sequence[Pair], bytes_a_pixel: int) -> Iterator[Result]:
    """Results in order, read ahead by threads; ``Pool`` bounds the pixels that are held at once."""

    def jobs() -> Iterator[Job[Result]]:
        for pair in pairs:
            height, width = image_size(pair.where) if isinstance(pair.where, Path) else pair.record.size or (0, 0)
            yield Job(pair.record.name, partial(read, pair), bytes_a_pixel * height * width)

    with Pool(READERS - WRITERS) as pool:
        yield from pool.run(jobs())


def check_size(prediction: tuple[int, ...], truth: tuple[int, ...], pair: Pair) -> None:
    """Refuse a prediction (H, W) of another size than its truth (H, W).

    Raises:
        DataError: they differ.
    """
    if prediction != truth:
        raise DataError(
            f"{pair.prediction} is {prediction[0]} x {prediction[1]} (rows x columns), its mask {pair.where}"
            f" is {truth[0]} x {truth[1]}",
            "make the prediction again at the size of its image",
        )


def check_classes(making: Making, tagged: TaggedSet, predictions: Path) -> None:
    """Refuse predictions that were made for other classes, or for the same in another order.

    Raises:
        DataError: they were.
    """
    if making.classes is not None and making.classes != tagged.classes:
        raise DataError(
            f"{predictions} was made for the classes {', '.join(making.classes)};"
            f" {tagged.root} has {', '.join(tagged.classes)}",
            "score it on the data set it was made for, with the classes in the same order",
        )
