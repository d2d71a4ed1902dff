"""The layout of PASCAL VOC: split lists, JPEGImages, and tags from a table, from XML or from masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from wsss.data.findings import BadData, Note, Place, refuse
from wsss.data.images import list_images
from wsss.data.masks import IGNORE_INDEX, read_mask, unknown_indices
from wsss.data.readers.folder import ListedImage, Listing, missing_images, untagged_images
from wsss.data.readers.tag_table import TAG_FILES, find_tag_file, image_name, read_tag_file, read_text

TagSource = Literal["file", "xml", "masks"]
Names = tuple[str, ...] | None
Labels = tuple[str, ...] | None
"""Words, or None where nobody tells them."""
Told = tuple[Mapping[str, tuple[Labels, Place]], tuple[str, ...], Path]
"""Labels and where they stand by image name, the class names, and who told."""

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
IMAGES = "JPEGImages"
MAX_ANNOTATION = 2**24
"""Bytes of an annotation; so many hold a hundred thousand objects."""
LINE = 4096
"""Bytes of a line of a split list that are looked at to tell its kind."""


def is_voc(root: Path) -> bool:
    """Whether a folder has the layout of PASCAL VOC."""
    return (root / IMAGES).is_dir() and (root / "ImageSets").is_dir()


def voc_splits(root: Path) -> dict[str, Path]:
    """Split lists by name, sorted. Lists of one class (``cat_train.txt`` in Main) are left out."""
    for name in LIST_FOLDERS:
        lists = sorted(path for path in (root / "ImageSets" / name).glob("*.txt") if path.is_file())
        splits = {path.stem: path for path in lists if not is_class_list(path)}
        if splits:
            return splits
    fix = f"write one image name a line to {root / 'ImageSets' / 'Segmentation' / 'train.txt'}"
    raise BadData.at("split-missing", root / "ImageSets", "no split list in Segmentation or Main", fix)


def is_class_list(path: Path) -> bool:
    """Whether the first line is an image and 1, 0 or -1: in it, perhaps in it, not in it."""
    with path.open("rb") as file:
        fields = file.readline(LINE).split()
    return len(fields) == 2 and fields[1] in (b"1", b"0", b"-1")


def mask_folder(root: Path) -> Path | None:
    """Where the masks lie, or None; it is not opened."""
    return next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)


def read_voc(
    root: Path,
    split: str,
    *,
    source: TagSource | Literal["auto"] = "auto",
    table: Path | None = None,
    names: tuple[str, ...] | None = None,
    need_tags: bool = True,
    note: Note = refuse,
) -> Listing:
    """List one split.

    Args:
        root: the folder with JPEGImages and ImageSets.
        split: one of ``voc_splits``.
        source: where tags come from; "auto" is the table, else the XML annotations, and never the masks.
        table: tags.csv or tags.json elsewhere than at the root.
        names: class names of the data set, where its classes.txt tells them.
        need_tags: else an image without any is one that holds none of the classes.
        note: told of faults; where it goes on, the images at fault are left out.

    Raises:
        DataError: listed images are missing or, where they are needed, have no tags.
    """
    table = table or find_tag_file(root)
    if source == "auto":
        source = "xml" if table is None and (root / "Annotations").is_dir() else "file"
    files = list_images(root / IMAGES, note=note)
    listed = read_split(voc_splits(root)[split], files, note)
    if need_tags or table is not None or source != "file":
        tags, classes, told_by = TAG_READERS[source](root, listed, table, names, note)
    else:
        tags, classes, told_by = {}, names or VOC_CLASSES, root
    untagged = [name for name in listed if name not in tags or tags[name][0] is None]
    if untagged and need_tags:
        note(untagged_images(untagged, told_by))
    elif untagged:
        tags = {**dict.fromkeys(untagged, ((), Place(told_by))), **tags}
    return Listing(
        split=split,
        images=tuple(
            ListedImage(name=name, image=root / IMAGES / files[name], labels=tags[name][0] or (), place=tags[name][1])
            for name in listed
            if name in tags
        ),
        classes=classes,
        source=told_by,
        mask_folder=mask_folder(root),
    )


def read_split(path: Path, files: Mapping[str, str], note: Note = refuse) -> list[str]:
    """Image names of a split list, in its order.

    A line is a name, or fields of which the first is one: ``2007_000032`` or
    ``/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png``.

    Raises:
        DataError: it is empty, names an image twice, or one that is missing or outside JPEGImages.
    """
    names: dict[str, Place] = {}
    missing = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        whole, place = line.strip(), Place(path, number)
        if not whole:
            continue
        image = whole if whole in files else whole.split()[0].removeprefix("/JPEGImages/")
        try:
            name, _ = image_name(image, place, prefix=IMAGES)
        except BadData as error:
            note(error)
            continue
        if name in names:
            what, fix = f"'{name}' is listed before, at line {names[name].line}", f"sort -u {path}"
            note(BadData.at("image-twice", place, what, f"keep one line for each image: {fix}"))
        elif name not in files:
            missing[name] = place
        names.setdefault(name, place)
    if not names:
        raise BadData.at("split-empty", path, "the split is empty", f"write one image name a line to {path}")
    if missing:
        note(missing_images(missing, path, path.parents[2] / IMAGES))
    return [name for name in names if name not in missing]


def tags_from_file(root: Path, listed: list[str], table: Path | None, names: Names, note: Note) -> Told:
    """Tags from a table; without classes.txt the classes are all its labels, sorted."""
    if table is None:
        what = f"no tags: looked for {', '.join(TAG_FILES)} and Annotations"
        raise BadData.at("image-untagged", root, what, write_a_table(root))
    tag_file = read_tag_file(table, prefix=IMAGES, known=names or (), note=note)
    tags = {name: (line.labels, line.place) for name, line in tag_file.lines.items()}
    return tags, names or tag_file.classes(note), table


def tags_from_xml(root: Path, listed: list[str], table: Path | None, names: Names, note: Note) -> Told:
    """Tags from the objects of the XML annotations, those marked difficult too."""
    folder = root / "Annotations"
    files = {name: folder / f"{name}.xml" for name in listed}
    return told_by_files(xml_labels, files, note), names or VOC_CLASSES, folder


def tags_from_masks(root: Path, listed: list[str], table: Path | None, names: Names, note: Note) -> Told:
    """Tags from the class indices of the masks: only where the user asks for it."""
    classes, folder = names or VOC_CLASSES, mask_folder(root)
    if folder is None:
        what = f"tags were asked from the masks, but there is no {' or '.join(MASK_FOLDERS)}"
        raise BadData.at("image-untagged", root, what, write_a_table(root))
    files = {name: folder / f"{name}.png" for name in listed}
    return told_by_files(lambda path: mask_labels(path, classes), files, note), classes, folder


def told_by_files(
    read: Callable[[Path], Labels], files: Mapping[str, Path], note: Note
) -> dict[str, tuple[Labels, Place]]:
    """Labels by image name, each from a file of its own; a faulty file tells of none."""
    told: dict[str, tuple[Labels, Place]] = {}
    for name, path in files.items():
        told[name] = ((), Place(path))
        try:
            told[name] = (read(path), Place(path))
        except BadData as error:
            note(error)
    return told


def write_a_table(root: Path) -> str:
    """How to tell tags where nothing does."""
    return f"write {root / 'tags.csv'} with the header image,labels and a line for each image"


TAG_READERS: dict[TagSource, Callable[[Path, list[str], Path | None, Names, Note], Told]] = {
    "file": tags_from_file,
    "xml": tags_from_xml,
    "masks": tags_from_masks,
}


class PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type, and with it entities that grow or read other files."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        """Called at a document type declaration, before its entities are used."""
        raise ValueError("it declares a document type")


def xml_labels(path: Path) -> tuple[str, ...] | None:
    """Names of the objects of an annotation, without those of their parts; None where there is no file.

    Raises:
        DataError: it is not XML, or declares a document type.
    """
    try:
        if path.stat().st_size > MAX_ANNOTATION:
            raise bad_annotation(path, f"more than {MAX_ANNOTATION} bytes")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise bad_annotation(path, error.strerror) from error
    try:
        tree = ElementTree.fromstring(content, parser=ElementTree.XMLParser(target=PlainTree()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last: an encoding nobody knows
        raise bad_annotation(path, error) from error
    labels = [(thing.findtext("name") or "").strip() for thing in tree.iterfind("object")]
    return tuple(dict.fromkeys(label for label in labels if label))


def bad_annotation(path: Path, reason: object) -> BadData:
    """An annotation that tells nothing."""
    what = f"unreadable annotation ({reason})"
    return BadData.at("annotation-unreadable", path, what, f"replace or delete {path}")


def mask_labels(path: Path, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names of the classes that a mask holds; None where there is no mask.

    Raises:
        DataError: the mask holds an index beyond the classes.
    """
    if not path.is_file():
        return None
    label_HW = read_mask(path)
    unknown = unknown_indices(label_HW, len(classes))
    if unknown:
        what = f"class index {unknown[-1]}, but there are {len(classes)} classes"
        fix = f"list every class, one a line, in {path.parents[1] / 'classes.txt'}"
        raise BadData.at("mask-class", path, what, fix)
    return tuple(classes[index - 1] for index in np.unique(label_HW).tolist() if index not in (0, IGNORE_INDEX))
