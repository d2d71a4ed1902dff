"""Label maps that a training is given: where they lie, and whether they fit the images they are learnt with."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from wsss.data.layers import check_layers
from wsss.data.masks import IGNORE_INDEX, count_indices, read_mask
from wsss.data.records import TaggedSet, counted
from wsss.data.threads import in_threads
from wsss.data.walking import spelled
from wsss.errors import DataError
from wsss.models.checkpoint import file_hash
from wsss.outputs.journal import read_journal
from wsss.outputs.manifest import made_in, read_making
from wsss.outputs.shards import refuse_unfinished
from wsss.reporting import Reporter, first_few


def find_labels(folder: Path, train: TaggedSet) -> Path:
    """Where the label maps of a folder lie: in it, or in its ``labels``.

    Raises:
        DataError: some image has none, or one of another size; or they were made for other classes.
    """
    inner = folder / "labels" if (folder / "labels").is_dir() else folder
    refuse_unfinished(made_in(inner))
    fix = f"wsss make-pseudo RUN --data {train.root} --split {train.split} -o {folder}"
    check_layers(inner, train, "label map", fix)
    _check_classes(made_in(inner), train)
    return inner


def _check_classes(folder: Path, train: TaggedSet) -> None:
    """Compare the classes in the manifest of a folder, if it has one, with those of the data set."""
    classes = read_making(folder).classes
    if classes is not None and classes != train.classes:
        same = sorted(classes) == sorted(train.classes)
        raise DataError(
            f"{folder}: its label maps have the classes {', '.join(classes)}; {train.root} has "
            f"{', '.join(train.classes)}{', in another order' if same else ''}",
            f"wsss make-pseudo RUN --data {train.root} --split {train.split} -o LABELS  # from a run on these classes",
        )


def check_pixels(labels: Path, train: TaggedSet, reporter: Reporter, edited: Collection[str] = ()) -> None:
    """Count the classes in label maps, and compare them with the tags of their images.

    Args:
        labels: the folder of the label maps.
        train: the images.
        reporter: gets what is odd.
        edited: names of images whose counts in the journal no longer hold.

    Raises:
        DataError: a label map holds an index that no class has.
    """
    entries = read_journal(made_in(labels))
    known = [
        entries[one.name].pixels if one.name in entries and one.name not in edited else None for one in train.records
    ]
    read = partial(_count, labels)
    unread = [one.name for one, counts in zip(train.records, known, strict=True) if counts is None]
    counted_now = dict(zip(unread, in_threads(read, unread), strict=True))
    classes = {*range(1, len(train.classes) + 1)}
    held: set[int] = set()
    odd = []
    for record, counts in zip(train.records, known, strict=True):
        found = set(counted_now[record.name] if counts is None else counts) - {0, IGNORE_INDEX}
        if found - classes:
            where = spelled(labels, f"{record.name}.png")
            known_ones = counted(len(classes), "class", "classes")
            what = f"{where}: holds class index {min(found - classes)}; there are {known_ones}"
            raise DataError(what, f"give it the class indices of {train.root}")
        held |= found
        if found - {tag + 1 for tag in (*record.tags, *record.unknown)}:
            odd.append(record.name)
    if not held:
        reporter.say(
            f"no label map in {labels} holds a pixel of a class, all are background or {IGNORE_INDEX}: objects need the"
            " index of their class, 1 for the first"
        )
    if odd and train.tags_source:
        reporter.say(
            f"{counted(len(odd), 'label map')} of {len(train)} {'holds' if len(odd) == 1 else 'hold'} a class that the"
            f" tags of {'its image' if len(odd) == 1 else 'their images'} do not name ({first_few(odd)})"
        )
    lost = [name for k, name in enumerate(train.classes, start=1) if k not in held] if held else []
    if lost:
        reporter.say(
            f"no label map holds a pixel of {first_few([repr(name) for name in lost], 5)}: nothing is learnt of it"
        )


def _count(labels: Path, name: str) -> dict[int, int]:
    return count_indices(read_mask(spelled(labels, f"{name}.png")))


def remark_on_changes(labels: Path, train: TaggedSet, reporter: Reporter) -> None:
    """Name the images whose bytes or tags are not those that the label maps of a folder were made from.

    Masks of ``predict`` are made without tags.
    """
    folder = made_in(labels)
    entries, from_tags = read_journal(folder), read_making(folder).kind == "pseudo"
    records = [record for record in train.records if record.name in entries]
    changed = [one.name for one in records if one.digest not in (None, entries[one.name].image)]
    retagged = [one.name for one in records if from_tags and one.tags != entries[one.name].tags]
    for names, what in ((changed, "changed"), (retagged, "got other tags")):
        if names:
            reporter.say(
                f"{counted(len(names), 'image')} of {len(train)} {what} after the label maps in {folder} were made"
                f" ({first_few(names)}): make-pseudo makes these again"
            )


def edited_labels(labels: Path, train: TaggedSet, reporter: Reporter) -> list[str]:
    """Names of the images whose label map has other bytes than this program wrote, by the journal of its folder.

    They are named in a remark: a person or another program has changed them.
    """
    entries = read_journal(made_in(labels))
    written = {name: entry.files.get(f"labels/{name}.png") for name, entry in entries.items()}
    edited = [
        record.name
        for record in train.records
        if written.get(record.name) not in (None, file_hash(spelled(labels, f"{record.name}.png")))
    ]
    if edited:
        count = f"{len(edited)} of {counted(len(train), 'label map')}"
        reporter.say(f"{count} in {labels} changed after make-pseudo or predict wrote them ({first_few(edited)})")
    return edited
