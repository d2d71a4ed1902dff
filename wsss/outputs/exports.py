"""What ``wsss data convert`` writes, read from a data set or from a folder of label maps (make-pseudo, predict)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.findings import Note, refuse
from wsss.data.images import MANIFEST
from wsss.data.masks import IGNORE_INDEX, count_indices, read_mask
from wsss.data.photographs import is_ours
from wsss.data.records import Record, TaggedSet, counted
from wsss.data.truth import read_truth
from wsss.data.walking import is_file, walk
from wsss.data.writers.writer import Export, Picture, Writer
from wsss.errors import DataError, UsageError
from wsss.files import whole_folder
from wsss.outputs.journal import read_journal
from wsss.outputs.manifest import find_predictions
from wsss.reporting import Reporter, Silent, first_few


def is_label_folder(folder: Path) -> bool:
    """Whether make-pseudo or predict wrote a folder."""
    return is_ours(folder / MANIFEST)


def export_data(
    root: Path,
    *,
    splits: Sequence[str] = (),
    reading: Reading | None = None,
    masks: bool = False,
    note: Note = refuse,
    reporter: Reporter | None = None,
) -> Export:
    """The images of a data set. An image in several splits is written once, in the smallest of them.

    Args:
        root: the data folder.
        splits: those to write; all of them if empty.
        reading: how it is read.
        masks: whether label maps are written.
        note: called with each fault and remark.
        reporter: gets the progress of reading a large file.

    Raises:
        UsageError, DataError: see ``open_data``; or the splits have other classes.
    """
    names = splits or list_splits(root, reading, note=note, reporter=reporter)
    sets = [open_data(root, split=name, reading=reading, note=note, reporter=reporter) for name in names]
    classes = sets[0].classes
    other = next((one for one in sets if one.classes != classes), None)
    if other is not None:
        what = f"{root}: split '{other.split}' has other classes than '{sets[0].split}'"
        raise DataError(what, f"list every class in {root / 'classes.txt'}")
    home: dict[str, str] = {}
    for tagged in sorted(sets, key=len, reverse=True):
        home.update((record.name, tagged.split) for record in tagged.records)
    pictures = [
        _of_record(tagged, record, masks)
        for tagged in sets
        for record in tagged.records
        if home[record.name] == tagged.split
    ]
    export = Export(classes=classes, pictures=pictures, masks=masks)
    if any(one.of_objects for one in sets):
        export.remarks.append("the tags are those of drawn objects, which a run on the copy cannot know")
    repeated = sum(map(len, sets)) - len(pictures)
    if repeated:
        export.remarks.append(f"{counted(repeated, 'image')} listed in several splits: kept in the smallest of them")
    return export


def _of_record(tagged: TaggedSet, record: Record, masks: bool) -> Picture:
    tags = tuple(tagged.classes[tag] for tag in record.tags)
    label = partial(read_truth, tagged, record) if masks and tagged.has_truth(record) else None
    unknown = tuple(tagged.classes[tag] for tag in record.unknown)
    return Picture(
        name=record.name,
        image=record.image,
        split=tagged.split,
        tags=tags,
        label=label,
        unknown=unknown,
        part=record.part,
    )


def export_labels(folder: Path) -> Export:
    """The label maps of a folder that make-pseudo or predict wrote; tags are the classes of their pixels.

    Raises:
        DataError: the folder does not name its classes, or holds no label map.
    """
    found = find_predictions(folder)
    if found.making.classes is None:
        raise DataError(f"{folder}: its manifest names no classes", "make the label maps again")
    journal = read_journal(folder)
    names = sorted(file[:-4] for file in walk(found.labels).files if file.endswith(".png"))
    if not names:
        raise DataError(f"{found.labels}: no label map in it", f"ls -R {found.labels}")
    pictures, lost = [], []
    for name in names:
        entry = journal.get(name)
        image = None if entry is None else Path(entry.origin)
        if image is not None and not is_file(image):
            lost.append(name)
            image = None
        read = partial(_checked_label, found.labels / f"{name}.png", found.making.classes)
        pixels = count_indices(read()) if entry is None else entry.pixels
        tags = tuple(one for k, one in enumerate(found.making.classes, start=1) if pixels.get(k))
        pictures.append(
            Picture(
                name=name,
                image=image,
                split="all",
                tags=tags,
                label=read,
                certainty={} if entry is None else entry.certainty,
                score=None if entry is None else entry.mean_certainty,
            )
        )
    export = Export(classes=found.making.classes, pictures=pictures, masks=True)
    if lost:
        export.remarks.append(f"images no longer where they were: {len(lost)} ({first_few(lost)})")
    return export


def _checked_label(path: Path, classes: Sequence[str]) -> NDArray[np.uint8]:
    """A label map of these classes.

    Raises:
        DataError: it cannot be read, or holds other class indices.
    """
    label_HW = read_mask(path)
    wrong = [index for index in count_indices(label_HW) if len(classes) < index != IGNORE_INDEX]
    if wrong:
        raise DataError(f"{path}: class index {wrong[0]}, but there are {len(classes)} classes", f"remove {path}")
    return label_HW


def write_export(
    out: Path, export: Export, writer: Writer, reporter: Reporter | None = None
) -> Mapping[str, int | list[str]]:
    """Write a folder, which appears whole or not at all; the reporter gets the progress.

    Returns:
        Counts, and what the format cannot hold.

    Raises:
        UsageError: the folder is there and not empty, or the format holds masks and none are there.
        DataError: a label map cannot be read.
    """
    refuse_existing(out)
    if writer.needs_masks and all(picture.label is None for picture in export.pictures):
        raise UsageError(f"{writer.name} holds label maps, and there is none", "--to folder  # holds tags alone")
    unknown = sum(bool(picture.unknown) for picture in export.pictures)
    if unknown and not writer.unknown:
        what = f"{counted(unknown, 'image')} with unknown tags: the format cannot hold them, the class is absent there"
        export.remarks.append(what)
    export.reporter = reporter or Silent()
    export.reporter.begin(f"writing {writer.name}", len(export.pictures))
    with whole_folder(out) as folder:
        writer.write(folder, export)
    return {
        "images": len(export.pictures),
        "classes": len(export.classes),
        "ignored_pixels": export.ignored,
        "without_mask": export.without_label,
        "tags_differ": export.tags_differ,
        "remarks": export.remarks,
    }


def refuse_existing(out: Path) -> None:
    """Refuse an output that is there, unless it is an empty folder.

    Raises:
        UsageError: it is.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty", "choose another folder with -o")
