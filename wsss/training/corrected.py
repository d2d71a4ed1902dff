"""Masks that people drew or corrected, of some of the images of a training (``train-seg --corrected``).

A step learns from such a mask in place of the pseudo label of its image, wherever that comes from: class maps and
decoder, a teacher, or a folder. So no pseudo label ever replaces one, and the files are only read.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsss.data.dataset import read_classes
from wsss.data.images import image_size
from wsss.data.masks import IGNORE_INDEX, count_indices, read_mask
from wsss.data.records import TaggedSet, counted
from wsss.data.threads import in_threads
from wsss.data.walking import spelled
from wsss.errors import DataError
from wsss.files import files_below
from wsss.outputs.journal import read_journal
from wsss.outputs.manifest import made_in, read_making
from wsss.outputs.provenance import Supervision
from wsss.reporting import Reporter, first_few
from wsss.training.given_labels import edited_labels


@dataclass(frozen=True, slots=True)
class Corrected:
    """The masks of people.

    Attributes:
        folder: that holds NAME.png.
        names: of the images that have one, sorted.
    """

    folder: Path
    names: tuple[str, ...]

    def supervision(self, images: int) -> Supervision:
        """What a network has learnt from that was trained on these and on so many images in all."""
        return (f"people's masks of {len(self.names)} of {counted(images, 'image')}",)

    def to_task(self) -> dict[str, object]:
        """Plain values for a checkpoint."""
        return {"folder": str(self.folder.absolute()), "names": list(self.names)}


def corrected_from(task: object) -> Corrected | None:
    """What `Corrected.to_task` wrote; None where there was none.

    Raises:
        DataError: the folder is no longer there.
    """
    if not isinstance(task, dict):
        return None
    found = Corrected(Path(str(task["folder"])), tuple(map(str, task["names"])))
    if not found.folder.is_dir():
        raise DataError(f"{found.folder}: no such folder; the run began with its corrected masks", "put it back")
    return found


def find_corrected(folder: Path, train: TaggedSet, reporter: Reporter) -> Corrected:
    """The masks of a folder, or of its ``labels``; checked, counted and said.

    Of a folder that make-pseudo or predict wrote, only the label maps that were changed since count. Of a data folder
    with ``masks`` and ``classes.txt`` (what ``wsss data convert --masks`` writes), the masks.

    Raises:
        DataError: there is no such folder, no mask of an image of the split, or one that does not fit its image or the
            classes.
    """
    inner = next((folder / name for name in ("labels", "masks") if (folder / name).is_dir()), folder)
    if not inner.is_dir():
        raise DataError(f"{folder}: no such folder of corrected masks", f"ls {folder.parent}")
    _check_classes(folder, inner, train)
    images = {record.name for record in train.records}
    inner, there = _named(inner, images)
    if read_journal(made_in(inner)):
        there = {*edited_of(inner, train, there & images, reporter)}
    names = tuple(sorted(there & images))
    if not names:
        what = f"{inner}: holds no corrected mask of an image of split '{train.split}'"
        raise DataError(what, "name each mask as its image: NAME.png, a palette PNG of class indices")
    _check(inner, names, train)
    reporter.say(f"{counted(len(names), 'image')} of {len(train)} learn from people's masks in {inner}")
    others = sorted(there - images)
    if others:
        reporter.say(f"{counted(len(others), 'mask')} there of no image of the split ({first_few(others)}): not used")
    return Corrected(inner, names)


def _check_classes(folder: Path, inner: Path, train: TaggedSet) -> None:
    """Refuse masks of other classes, or of the same in another order, where a file beside them names them."""
    classes = read_making(made_in(inner)).classes or read_classes(inner) or read_classes(inner.parent)
    if classes is None or classes == train.classes:
        return
    what = f"{folder}: its masks have the classes {', '.join(classes)}; {train.root} {', '.join(train.classes)}"
    mend = "give --corrected masks of the same classes in the same order"
    if {*classes} == {*train.classes}:
        mend = f"wsss data convert DIR --to folder --masks --classes {','.join(train.classes)} -o CORRECTED"
    raise DataError(what, mend)


def _named(folder: Path, images: Set[str]) -> tuple[Path, set[str]]:
    """Names of the masks in a folder; where none is that of an image and all lie in one folder more, those in that."""
    there = {path.relative_to(folder).as_posix()[:-4] for path in files_below(folder) if path.suffix == ".png"}
    below = {name.partition("/")[0] for name in there}
    if there & images or len(below) != 1 or below <= there:
        return folder, there
    return _named(folder / below.pop(), images)


def edited_of(folder: Path, train: TaggedSet, known: set[str], reporter: Reporter) -> Sequence[str]:
    """Names of the images whose label map in a folder of ours was changed since it was made."""
    if len(known) < len(train):
        keep = [i for i, record in enumerate(train.records) if record.name in known]
        train = replace(train, records=train.columns.take(np.array(keep, np.int64)))
    return edited_labels(folder, train, reporter)


def _check(folder: Path, names: Sequence[str], train: TaggedSet) -> None:
    """Refuse masks of another size than their images, or of unknown classes."""
    sizes = {record.name: record.upright_size() for record in train.records}

    def indices(name: str) -> set[int]:
        path = spelled(folder, f"{name}.png")
        height, width = image_size(path)
        if (height, width) != sizes[name]:
            was = f"its image {sizes[name][0]} x {sizes[name][1]}"
            raise DataError(f"{path} is {height} x {width} (rows x columns), {was}", "draw it at the size of the image")
        return {*count_indices(read_mask(path))}

    for name, found in zip(names, in_threads(indices, names), strict=True):
        wrong = sorted(found - {*range(len(train.classes) + 1), IGNORE_INDEX})
        if wrong:
            path, most = folder / f"{name}.png", len(train.classes)
            what = f"{path}: holds class index {wrong[0]}; there are {counted(most, 'class', 'classes')}"
            raise DataError(what, f"give it the class indices of {train.root}: 1 is {train.classes[0]}")
