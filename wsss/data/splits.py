"""The splits that a command reads, for training, validation or labelling, without their unreadable images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss.config import Config, DataSection
from wsss.data.dataset import list_splits, open_data
from wsss.data.index import keep_readable
from wsss.data.records import TaggedSet
from wsss.errors import UsageError
from wsss.reporting import Reporter

TRAIN_SPLITS = ("train_aug", "trainaug", "train")
"""Splits that training takes where none is named; the first that exists."""


def open_split(
    data: DataSection, split: str | None, reporter: Reporter, classes: Sequence[str] | None = None
) -> TaggedSet:
    """Open one split and leave out its unreadable images; the reporter is given the reason for each.

    Raises:
        UsageError, DataError: see ``open_data`` and ``keep_readable``.
    """
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    tagged = open_data(
        data.root, split=split, layout=data.layout, tags=data.tags, tags_from=data.tags_from, classes=classes
    )
    tagged, bad = keep_readable(tagged, limit=data.bad_limit, reporter=reporter)
    for message in bad:
        reporter.say(f"skipped {message}")
    if bad:
        reporter.say(f"split {tagged.split}: {len(bad)} of {len(bad) + len(tagged)} images skipped")
    return tagged


def open_training(
    config: Config, reporter: Reporter, classes: Sequence[str] | None = None
) -> tuple[TaggedSet, TaggedSet | None]:
    """The training split and, where there is one, the validation split, with the same classes."""
    data = config.data
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    train_split = data.train_split or _train_split(data.root, data)
    splits = list_splits(data.root, data.layout, data.tags)
    val_split = data.val_split or ("val" if "val" in splits and train_split != "val" else None)
    train = open_split(data, train_split, reporter, classes)
    reporter.say(train.summary())
    val = open_split(data, val_split, reporter, train.classes) if val_split is not None else None
    return train, val


def open_to_label(config: Config, reporter: Reporter, classes: Sequence[str]) -> TaggedSet:
    """The split that ``make-pseudo`` labels: the one named, else the one that training takes."""
    data = config.data
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    return open_split(data, data.train_split or _train_split(data.root, data), reporter, classes)


def _train_split(root: Path, data: DataSection) -> str | None:
    splits = list_splits(root, data.layout, data.tags)
    return next((name for name in TRAIN_SPLITS if name in splits), None)
