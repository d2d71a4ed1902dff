"""The splits that a command reads, for training, validation or labelling, without their unreadable images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wsss.config import Config, DataSection
from wsss.data.class_names import one_slip
from wsss.data.dataset import list_splits, open_data
from wsss.data.findings import Note, telling
from wsss.data.geo import remark
from wsss.data.index import keep_readable
from wsss.data.lessons import worst_lesson
from wsss.data.levels import as_text, with_levels
from wsss.data.records import TaggedSet, counted
from wsss.errors import UsageError
from wsss.reporting import Reporter, first_few

TRAIN_SPLITS = ("train_aug", "trainaug", "train", "training")
"""Splits that training takes where none is named; the first that exists."""
VAL_SPLITS = ("val", "valid", "validation", "validate", "dev", "develop", "development")
"""Splits that training is validated on where none is named; the first that exists."""


def open_split(
    data: DataSection,
    split: str | None,
    reporter: Reporter,
    classes: Sequence[str] | None = None,
    *,
    note: Note | None = None,
) -> TaggedSet:
    """Open one split and leave out its unreadable images; the reporter is given the reason for each.

    Args:
        data: where it lies.
        split: its name; may be left out where there is only one.
        reporter: gets the progress and the remarks.
        classes: class names of a checkpoint.
        note: called with each fault and warning of the reader; None raises faults and gives warnings to the reporter.

    Raises:
        UsageError, DataError: see ``open_data`` and ``keep_readable``.
    """
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    tagged = open_data(
        data.root,
        split=split,
        reading=data,
        classes=classes,
        note=note or telling(reporter.say),
        reporter=reporter,
    )
    tagged, bad = keep_readable(tagged, limit=data.bad_limit, reporter=reporter)
    for message in bad:
        reporter.say(f"skipped {message}")
    if bad:
        reporter.say(f"split {tagged.split}: {len(bad)} of {len(bad) + len(tagged)} images skipped")
    if words := remark(tagged.columns.paths):
        reporter.say(words)
    return replace(tagged, records=with_levels(tagged.columns, data.levels, reporter.say))


def open_training(
    config: Config, reporter: Reporter, classes: Sequence[str] | None = None
) -> tuple[TaggedSet, TaggedSet | None]:
    """The training split and, where there is one, the validation split, with the same classes."""
    data, note = config.data, telling(reporter.say)
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    splits = list_splits(data.root, data, reporter=reporter)
    train_split = data.train_split or chosen_split(splits, TRAIN_SPLITS)
    train = open_split(data, train_split, reporter, classes, note=note)
    reporter.say(train.summary())
    worst = worst_lesson(train)
    if worst is not None:
        reporter.say(f"{worst.what}; {worst.mend} (wsss data check {data.root} says all)")
    if train.columns.levels is not None:
        data = data.model_copy(update={"levels": as_text(train.columns.levels)})
    val_split = data.val_split or _val_split(splits, train.split, reporter)
    val = open_split(data, val_split, reporter, train.classes, note=note) if val_split is not None else None
    if val is not None and (both := overlap(train, val)):
        reporter.say(both)
    unused = [] if val is None else [name for name in splits if name not in (train.split, val.split)]
    if unused:  # without a validation split they were named
        reporter.say(f"not read: split{'s' if len(unused) > 1 else ''} {first_few(unused, 10)}")
    for words in odd_splits(splits):
        reporter.say(words)
    return train, val


def odd_splits(names: Sequence[str]) -> Iterator[str]:
    """What to say of splits whose names differ by one slip from a usual one: "trian" is a split of its own."""
    usual = (*TRAIN_SPLITS, *VAL_SPLITS, "test")
    for name in names:
        plain = plain_split(name)
        meant = next((one for one in usual if plain != plain_split(one) and one_slip(plain, plain_split(one))), None)
        if meant is not None and plain not in map(plain_split, usual) and len(plain) > 2:
            yield f"'{name}' is a split of its own; did you mean '{meant}'?"


def with_range_of(config: Config, train: TaggedSet) -> Config:
    """The config with the range that was found in the training split, which a run keeps for all later images."""
    levels = train.columns.levels
    if levels is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"levels": as_text(levels)})})


def overlap(train: TaggedSet, val: TaggedSet) -> str:
    """What to say of images that are trained on and validated on; empty where there are none."""
    trained = set(train.columns.names)
    both = [name for name in val.columns.names if name in trained]
    if not both:
        digests = {record.digest for record in train.records} - {None}
        both = [record.name for record in val.records if record.digest in digests]
        if both:
            count = f"{counted(len(both), 'image')} of split '{val.split}'"
            return (
                f"{count} have the bytes of images of '{train.split}' ({first_few(both)}): figures on it are too good"
            )
    if not both:
        return ""
    count = f"{len(both)} of {counted(len(val), 'image')} of split '{val.split}'"
    return f"{count} are in split '{train.split}' as well ({first_few(both)}): figures on it are too good"


def open_to_label(config: Config, reporter: Reporter, classes: Sequence[str]) -> TaggedSet:
    """The split that ``make-pseudo`` labels: the one named, else the one that training takes."""
    data = config.data
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    splits = list_splits(data.root, data, reporter=reporter)
    return open_split(data, data.train_split or chosen_split(splits, TRAIN_SPLITS), reporter, classes)


def open_to_score(config: Config, reporter: Reporter, classes: Sequence[str]) -> TaggedSet:
    """The split that ``robustness`` measures: the one named, else the one that training validates on."""
    data = config.data
    if data.root is None:
        raise UsageError("no data folder was given", "--data DIR")
    splits = list_splits(data.root, data, reporter=reporter)
    return open_split(data, data.val_split or chosen_split(splits, VAL_SPLITS), reporter, classes)


def chosen_split(splits: Sequence[str], usual: Sequence[str]) -> str | None:
    """The split of the first of some usual names; None where there is none.

    A name that is spelled as usual goes before one that differs in case or punctuation, or ends in a year ("Val",
    "val2017"). Where several differ so from one usual name, none of them is chosen.
    """
    for name in usual:
        if name in splits:
            return name
    for name in usual:
        alike = [split for split in splits if plain_split(split) == plain_split(name)]
        if alike:
            return alike[0] if len(alike) == 1 else None
    return None


def plain_split(name: str) -> str:
    """The name of a split in lower case, without a year at its end, spaces and punctuation."""
    letters = "".join(letter for letter in name.casefold() if letter.isalnum())
    return re.sub(r"(?<=[a-z])(19|20)\d\d$", "", letters)


def _val_split(splits: Sequence[str], train_split: str, reporter: Reporter) -> str | None:
    """The split to validate on; it is said that there is none, or that its name is not the first usual one."""
    others = [split for split in splits if split != train_split]
    chosen = chosen_split(others, VAL_SPLITS)
    if chosen is None and others:
        names = " or ".join(VAL_SPLITS[:3])
        reporter.say(
            f"no validation, so no best.pt: no split is called {names}; there is {', '.join(others)} (--val-split NAME)"
        )
    elif chosen is None:
        reporter.say(f"no validation, so no best.pt: '{train_split}' is the only split")
    elif chosen != VAL_SPLITS[0]:
        reporter.say(f"validating on the split '{chosen}'")
    return chosen
