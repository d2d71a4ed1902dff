"""What ``wsss data split``, ``sample`` and ``tags`` write: other splits, some images, tags.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data, read_classes
from wsss.data.findings import Note, refuse
from wsss.data.index import scan_images
from wsss.data.masks import count_indices
from wsss.data.photographs import find_images
from wsss.data.readers.registry import recognise
from wsss.data.records import Record, Records, TaggedSet, counted
from wsss.data.subsets import choose, photos_of, stratify
from wsss.data.walking import conventional, is_folder
from wsss.data.writers.folder import as_list
from wsss.data.writers.writer import Export, Picture
from wsss.errors import DataError, UsageError
from wsss.files import write_whole
from wsss.outputs.exports import export_data
from wsss.reporting import Reporter


def divided(
    root: Path,
    shares: Mapping[str, float],
    *,
    splits: Sequence[str] = (),
    together: re.Pattern[str] | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    masks: bool = False,
    reporter: Reporter | None = None,
    note: Note = refuse,
) -> Export:
    """The images of a data set in new splits with the same share of every class; see ``wsss.data.subsets``.

    Args:
        root: the data folder.
        shares: weight of each new split.
        splits: those to divide; the only one if empty. The others stay as they are.
        together: see ``photos_of``.
        seed: of the division.
        reading: how the folder is read.
        masks: whether label maps are written.
        reporter: gets the progress of the scan that finds copies.
        note: called with each fault and remark.

    Raises:
        UsageError: it is not said which splits to divide, or a new split has the name of one that stays.
        DataError: see ``open_data``.
    """
    there = list_splits(root, reading, note=note, reporter=reporter)
    unknown = [name for name in splits if name not in there]
    if unknown or (not splits and len(there) > 1):
        problem = f"no split '{unknown[0]}'" if unknown else "which of the splits is to be divided?"
        fix = f"--split {there[0]}  # repeat it to divide several; the others stay"
        raise UsageError(f"{root}: {problem}; there are {', '.join(there)}", fix)
    staying = [name for name in there if name not in (splits or there)]
    taken = [name for name in shares if name in staying]
    if taken:
        raise UsageError(f"split '{taken[0]}' is there already and stays", f"--split {taken[0]}, or another name")
    export = export_data(root, reading=reading, masks=masks, note=note, reporter=reporter)
    chosen = [i for i, picture in enumerate(export.pictures) if picture.split not in staying]
    records = Records.of(_record(export.pictures[i], export.classes) for i in chosen)
    photo_N = photos_of(scan_images(records, reporter, "looking for copies").known(), together)
    copies = len(photo_N) - len(np.unique(photo_N))
    if copies:
        export.remarks.append(f"{counted(copies, 'image')} kept in the split of another one of the same photo or group")
    part_N = stratify(_present(export, chosen), photo_N, [*shares.values()], seed)
    names = [*shares]
    pictures = [*export.pictures]
    for i, part in zip(chosen, part_N.tolist(), strict=True):
        pictures[i] = replace(pictures[i], split=names[part])
    empty = [name for part, name in enumerate(names) if part not in part_N]
    if empty:
        raise UsageError(f"{counted(len(chosen), 'image')} cannot fill split '{empty[0]}'", "fewer or larger shares")
    export.pictures = pictures
    return export


def sampled(
    root: Path,
    count: int,
    *,
    splits: Sequence[str] = (),
    seed: int = 0,
    reading: Reading | None = None,
    masks: bool = False,
    note: Note = refuse,
    reporter: Reporter | None = None,
) -> Export:
    """So many images of a data set, each split and each class by its share; see ``wsss.data.subsets.choose``.

    Raises:
        UsageError, DataError: see ``export_data``.
    """
    export = export_data(root, splits=splits, reading=reading, masks=masks, note=note, reporter=reporter)
    total = len(export.pictures)
    pictures: list[Picture] = []
    for split in export.splits():
        of_split = [i for i, picture in enumerate(export.pictures) if picture.split == split]
        wanted = max(1, round(count * len(of_split) / total)) if count < total else len(of_split)
        kept = choose(_present(export, of_split), wanted, seed)
        pictures += [export.pictures[of_split[i]] for i in kept.tolist()]
    export.pictures = pictures
    seen = {tag for picture in pictures for tag in picture.tags}
    lost = [name for name in export.classes if name not in seen]
    if lost:
        export.remarks.append(f"classes of which no image is there: {', '.join(lost)}")
    return export


def write_tags_of_masks(
    path: Path, root: Path, *, splits: Sequence[str] = (), reading: Reading | None = None, note: Note = refuse
) -> dict[str, int]:
    """Write a table of the classes in the mask of each image, which --tags takes; images without a mask have no line.

    Returns:
        Counts: images with a mask, those without one, and those whose tags were others.

    Raises:
        UsageError, DataError: see ``open_data``; or no image has a mask.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "labels", "split"))
    made = without = differ = 0
    for tagged, record, names in tags_of_masks(root, splits=splits, reading=reading, note=note):
        if names is None:
            without += 1
            continue
        made += 1
        differ += bool(tagged.tags_source) and set(names) != {tagged.classes[tag] for tag in record.tags}
        plain = not any(character in name for name in names for character in ' ;,|[]"')
        rows.writerow((record.name + record.image.suffix, ";".join(names) if plain else as_list(names), tagged.split))
    if not made:
        raise DataError(f"{root}: no image has a mask", f"wsss data info {root}")
    write_whole(path, text.getvalue())
    return {"images": made, "without_mask": without, "tags_differ": differ}


def tags_of_masks(
    root: Path, *, splits: Sequence[str] = (), reading: Reading | None = None, note: Note = refuse
) -> Iterator[tuple[TaggedSet, Record, tuple[str, ...] | None]]:
    """The classes in the mask of each image, in the order of the classes; None where it has no mask.

    Raises:
        UsageError, DataError: see ``open_data``.
    """
    for tagged in _scored_sets(root, splits, reading, note):
        for record in tagged.records:
            mask_HW = tagged.truth(record)
            seen = () if mask_HW is None else count_indices(mask_HW)
            names = tuple(name for k, name in enumerate(tagged.classes, start=1) if k in seen)
            yield tagged, record, None if mask_HW is None else names


def _scored_sets(root: Path, splits: Sequence[str], reading: Reading | None, note: Note) -> Iterator[TaggedSet]:
    """The splits of a data set; or one of a folder with masks/ and classes.txt that has no tags yet."""
    masks = conventional(root, "masks")
    if is_folder(masks) and not recognise(root, reading) and (names := read_classes(root, note=note)):
        inside = conventional(root, "images")
        found = find_images(inside) if is_folder(inside) else find_images(root, [masks.name], note=note)
        records = [Record(name=name, image=found.folder / file, tags=()) for name, file in found.files.items()]
        yield TaggedSet(root=root, split="all", classes=names, records=records, mask_folder=masks)
        return
    for split in splits or list_splits(root, reading, note=note):
        yield open_data(root, split=split, reading=reading, need_tags=False, note=note)


def _record(picture: Picture, classes: Sequence[str]) -> Record:
    assert picture.image is not None  # of a data set all are there
    return Record(name=picture.name, image=picture.image, tags=tuple(classes.index(tag) for tag in picture.tags))


def _present(export: Export, chosen: Sequence[int]) -> NDArray[np.bool_]:
    """(N, K) the tags of some pictures."""
    return np.array([[name in export.pictures[i].tags for name in export.classes] for i in chosen], bool).reshape(
        len(chosen), len(export.classes)
    )
