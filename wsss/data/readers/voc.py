"""The format of PASCAL VOC: split lists, JPEGImages, and tags from a table, from XML or from masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.config import Reading, TagsFrom
from wsss.data.findings import BadData, Note, Place, refuse
from wsss.data.images import split_suffix
from wsss.data.masks import IGNORE_INDEX, unknown_indices
from wsss.data.near_names import by_sight, same_by_sight
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.annotations import xml_labels
from wsss.data.readers.listing import ListedImage, Listing, missing_images, renamed, untagged_images
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.tag_table import TAG_FILES, find_tag_file, image_name, read_tag_file
from wsss.data.readers.text import read_text, unreadable_text
from wsss.data.readers.voc_check import contradictions
from wsss.data.truth import MaskValues
from wsss.data.walking import conventional, is_file, is_folder, names_in, spelled

Labels = tuple[str, ...] | None
"""Words, or None where an image has no tags."""

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 classes of PASCAL VOC in the order of their masks: class index 1 is the aeroplane."""

LIST_FOLDERS = ("Segmentation", "Main")
"""Folders of ImageSets that may hold the split lists; the first that exists counts."""
MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")
"""Folders of masks, the more complete first."""
IMAGES, LISTS = "JPEGImages", "ImageSets"
LINE = 4096
"""Bytes of the first line of a split list that are read to tell its kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """Tags of a data set.

    Attributes:
        labels: of an image by its name, and where they stand.
        classes: the class names.
        source: the file or folder they come from.
    """

    labels: Mapping[str, tuple[Labels, Place]]
    classes: tuple[str, ...]
    source: Path


@dataclass(frozen=True, slots=True)
class VocSource:
    """A folder with JPEGImages and ImageSets."""

    root: Path
    options: Options

    def splits(self) -> tuple[str, ...]:
        """Names of the split lists, sorted."""
        return tuple(_split_lists(self.root))

    def listing(self, split: str) -> Listing:
        """One split.

        Raises:
            DataError: listed images are missing or, where they are needed, have no tags.
        """
        root, options = self.root, self.options
        photographs = _photographs(root, options.note)
        files = photographs.files
        listed = _read_split(_split_lists(root)[split], photographs, options.note)
        tags = _read_tags(root, listed, options)
        labels = tags.labels
        untagged = [name for name in listed if name not in labels or labels[name][0] is None]
        if untagged and options.need_tags:
            strangers = (name for name in labels if name not in files)
            options.note(untagged_images(untagged, tags.source, strangers))
        elif untagged:
            labels = {**dict.fromkeys(untagged, ((), Place(tags.source))), **labels}
        return Listing(
            split=split,
            images=tuple(
                ListedImage(
                    name=name,
                    image=photographs.folder / files[name],
                    labels=labels[name][0] or (),
                    place=labels[name][1],
                )
                for name in listed
                if name in labels
            ),
            classes=tags.classes,
            source=tags.source,
            mask_folder=_mask_folder(root),
        )


def _sniff(root: Path, reading: Reading) -> str | None:
    return (
        f"{IMAGES} and ImageSets"
        if is_folder(conventional(root, IMAGES)) and is_folder(conventional(root, LISTS))
        else None
    )


def _photographs(root: Path, note: Note = refuse) -> Photographs:
    return find_images(conventional(root, IMAGES), note=note)


def _split_lists(root: Path) -> dict[str, Path]:
    """Split lists by name, sorted. Lists of one class (``cat_train.txt`` in Main) are left out."""
    for name in LIST_FOLDERS:
        folder = conventional(conventional(root, LISTS), name)
        texts = (folder / file for file in names_in(folder) if file.lower().endswith(".txt"))
        lists = [path for path in texts if is_file(path)]
        splits = {path.stem: path for path in lists if not is_class_list(path)}
        if splits:
            return splits
    fix = f"write one image name a line to {root / 'ImageSets' / 'Segmentation' / 'train.txt'}"
    raise BadData.at("split-missing", conventional(root, LISTS), "no split list in Segmentation or Main", fix)


def is_class_list(path: Path) -> bool:
    """Whether the first line is an image and 1, 0 or -1, which tell whether the image holds one class."""
    try:
        with path.open("rb") as file:
            fields = file.readline(LINE).split()
    except OSError as error:
        raise unreadable_text(path, error) from error
    return len(fields) == 2 and fields[1] in (b"1", b"0", b"-1")


def _mask_folder(root: Path) -> Path | None:
    """Where the masks lie, or None; it is not opened."""
    return next((conventional(root, name) for name in MASK_FOLDERS if is_folder(conventional(root, name))), None)


def _read_tags(root: Path, listed: list[str], options: Options) -> Tags:
    """The tags of the listed images: from the table, the XML annotations or, only where that is asked, the masks."""
    reading = options.reading
    table, source = reading.tags or find_tag_file(root, note=options.note), reading.tags_from
    if source == "auto":
        source = "xml" if table is None and is_folder(conventional(root, "Annotations")) else "file"
    if source == "file" and table is None and not options.need_tags:
        return Tags(labels={}, classes=options.classes or VOC_CLASSES, source=root)
    return TAG_READERS[source](root, listed, table, options)


def _read_split(path: Path, photographs: Photographs, note: Note) -> list[str]:
    """Image names of a split list, in its order.

    A line is a name, or fields of which the first is one: ``2007_000032`` or
    ``/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png``.

    Raises:
        DataError: it is empty, names an image twice, or one that is missing or outside JPEGImages.
    """
    names: dict[str, Place] = {}
    files = photographs.files
    spaced = {by_sight(name) for name in files if len(name.split()) > 1}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        whole, place = line.strip(), Place(path, number)
        if not whole:
            continue
        is_name = bool(spaced) and by_sight(split_suffix(whole)[0]) in spaced
        image = whole if is_name else whole.split()[0].removeprefix(f"/{IMAGES}/")
        try:
            name, _ = image_name(image, place, prefix=IMAGES)
        except BadData as error:
            note(error)
            continue
        if name in names:
            what, fix = f"'{name}' is listed before, at line {names[name].line}", f"sort -u {path}"
            note(BadData.at("image-twice", place, what, f"keep one line for each image: {fix}"))
        names.setdefault(name, place)
    if not names:
        raise BadData.at("split-empty", path, "the split is empty", f"write one image name a line to {path}")
    same = same_by_sight(names, files)
    if same:
        note(renamed(same, path))
    missing = {name: place for name, place in names.items() if same.get(name, name) not in files}
    if missing:
        note(missing_images(missing, path, photographs))
    return [same.get(name, name) for name in names if name not in missing]


def _tags_from_file(root: Path, listed: list[str], table: Path | None, options: Options) -> Tags:
    """Tags from a table; without classes.txt the classes are all its labels, sorted."""
    if table is None:
        what = f"no tags: looked for {', '.join(TAG_FILES)} and Annotations"
        raise BadData.at("image-untagged", root, what, _write_a_table(root))
    tag_file = read_tag_file(
        table, prefix=IMAGES, known=options.classes or (), encoding=options.reading.encoding, note=options.note
    )
    same = same_by_sight(tag_file.lines, listed)
    if same:
        options.note(renamed(same, table))
    labels = {same.get(name, name): (line.labels, line.place) for name, line in tag_file.lines.items()}
    return Tags(labels=labels, classes=options.classes or tag_file.classes(options.note), source=table)


def _tags_from_xml(root: Path, listed: list[str], table: Path | None, options: Options) -> Tags:
    """Tags from the objects of the XML annotations, those marked difficult too."""
    folder = conventional(root, "Annotations")
    files = {name: spelled(folder, f"{name}.xml") for name in listed}
    labels = _labels_of_files(xml_labels, files, options.note)
    return Tags(labels=labels, classes=options.classes or VOC_CLASSES, source=folder)


def _tags_from_masks(root: Path, listed: list[str], table: Path | None, options: Options) -> Tags:
    """Tags from the class indices of the masks: only where the user asks for it."""
    classes, folder = options.classes or VOC_CLASSES, _mask_folder(root)
    if folder is None:
        what = f"tags were asked from the masks, but there is no {' or '.join(MASK_FOLDERS)}"
        raise BadData.at("image-untagged", root, what, _write_a_table(root))
    values = MaskValues(options.reading.mask_offset, options.reading.mask_ignore)
    files = {name: spelled(folder, f"{name}.png") for name in listed}
    labels = _labels_of_files(lambda path: mask_labels(path, values, classes), files, options.note)
    return Tags(labels=labels, classes=classes, source=folder)


def _labels_of_files(
    read: Callable[[Path], Labels], files: Mapping[str, Path], note: Note
) -> dict[str, tuple[Labels, Place]]:
    """Labels by image name, each from a file of its own; none from a faulty file where ``note`` returns."""
    labels: dict[str, tuple[Labels, Place]] = {}
    for name, path in files.items():
        labels[name] = ((), Place(path))
        try:
            labels[name] = (read(path), Place(path))
        except BadData as error:
            note(error)
    return labels


def _write_a_table(root: Path) -> str:
    """The remedy where no tags are found."""
    return f"write {root / 'tags.csv'} with the header image,labels and a line for each image"


TAG_READERS: dict[TagsFrom, Callable[[Path, list[str], Path | None, Options], Tags]] = {
    "file": _tags_from_file,
    "xml": _tags_from_xml,
    "shapes": _tags_from_xml,
    "masks": _tags_from_masks,
}


def mask_labels(path: Path, values: MaskValues, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names of the classes that a mask holds; None where there is no mask.

    Raises:
        DataError: the mask holds an index beyond the classes.
    """
    if not is_file(path):
        return None
    label_HW = values.read(path)
    unknown = unknown_indices(label_HW, len(classes))
    if unknown:
        what = f"class index {unknown[-1]}, but there are {len(classes)} classes"
        fix = f"list every class, one a line, in {path.parents[1] / 'classes.txt'}"
        raise BadData.at("mask-class", path, what, fix)
    return tuple(classes[index - 1] for index in np.unique(label_HW).tolist() if index not in (0, IGNORE_INDEX))


VOC = Reader(
    name="voc",
    looks_for=f"{IMAGES} with ImageSets",
    sniff=_sniff,
    open=VocSource,
    photographs=_photographs,
    lists_all=False,
    contradictions=contradictions,
    wins_over=("folder",),  # a table of tags at the root then gives the tags of the lists
)
