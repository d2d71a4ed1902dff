"""The layout of PASCAL VOC: split lists, JPEGImages, and tags from a table, from XML or from masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from wsss.data.folder import (
    TAG_FILES,
    ListedImage,
    Listing,
    find_tag_file,
    image_name,
    missing_images,
    read_tag_file,
    read_text,
    untagged_images,
)
from wsss.data.images import list_images
from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.errors import DataError

TagSource = Literal["file", "xml", "masks"]
Names = tuple[str, ...] | None
Told = tuple[Mapping[str, tuple[str, ...] | None], tuple[str, ...], Path]
"""Labels by image name (None where nobody tells them), the class names, and who told."""

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


def is_voc(root: Path) -> bool:
    """Whether a folder has the layout of PASCAL VOC."""
    return (root / IMAGES).is_dir() and (root / "ImageSets").is_dir()


def voc_splits(root: Path) -> dict[str, Path]:
    """Split lists by name, sorted. Lists of one class (``cat_train.txt`` in Main) are left out."""
    for name in LIST_FOLDERS:
        lists = sorted((root / "ImageSets" / name).glob("*.txt"))
        splits = {path.stem: path for path in lists if not is_class_list(path)}
        if splits:
            return splits
    raise DataError(
        f"{root / 'ImageSets'}: no split list in Segmentation or Main",
        f"write one image name a line to {root / 'ImageSets' / 'Segmentation' / 'train.txt'}",
    )


def is_class_list(path: Path) -> bool:
    """Whether the first line is an image and 1, 0 or -1: in it, perhaps in it, not in it."""
    with path.open("rb") as file:
        fields = file.readline().split()
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
) -> Listing:
    """List one split.

    Args:
        root: the folder with JPEGImages and ImageSets.
        split: one of ``voc_splits``.
        source: where tags come from; "auto" is the table, else the XML annotations, and never the masks.
        table: tags.csv or tags.json elsewhere than at the root.
        names: class names of the data set, where its classes.txt tells them.

    Raises:
        DataError: listed images are missing or have no tags.
    """
    table = table or find_tag_file(root)
    if source == "auto":
        source = "xml" if table is None and (root / "Annotations").is_dir() else "file"
    files = list_images(root / IMAGES)
    listed = read_split(voc_splits(root)[split], files)
    tags, classes, told_by = TAG_READERS[source](root, listed, table, names)
    untagged = [name for name in listed if tags.get(name) is None]
    if untagged:
        raise untagged_images(untagged, told_by)
    return Listing(
        split=split,
        images=tuple(
            ListedImage(name=name, image=root / IMAGES / files[name], labels=tags[name] or ()) for name in listed
        ),
        classes=classes,
        source=told_by,
        mask_folder=mask_folder(root),
    )


def read_split(path: Path, files: Mapping[str, str]) -> list[str]:
    """Image names of a split list, in its order.

    A line is a name, or fields of which the first is one: ``2007_000032`` or
    ``/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png``.

    Raises:
        DataError: it is empty, names an image twice, or one that is missing or outside JPEGImages.
    """
    names: dict[str, int] = {}
    missing = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        whole = line.strip()
        image = whole if whole in files else whole.split()[0].removeprefix("/JPEGImages/")
        name, _ = image_name(image, f"{path} line {number}", prefix=IMAGES)
        if name in names:
            raise DataError(
                f"{path} line {number}: '{name}' is listed before, at line {names[name]}",
                f"keep one line for each image: sort -u {path}",
            )
        names[name] = number
        if name not in files:
            missing.append(name)
    if not names:
        raise DataError(f"{path}: the split is empty", f"write one image name a line to {path}")
    if missing:
        raise missing_images(missing, path, path.parents[2] / IMAGES)
    return list(names)


def tags_from_file(root: Path, listed: list[str], table: Path | None, names: Names) -> Told:
    """Tags from a table; without classes.txt the classes are all its labels, sorted."""
    if table is None:
        raise DataError(
            f"{root}: no tags: looked for {', '.join(TAG_FILES)} and Annotations",
            f"write {root / 'tags.csv'} with the header image,labels and a line for each image",
        )
    tag_file = read_tag_file(table, prefix=IMAGES, known=names or ())
    tags = {name: line.labels for name, line in tag_file.lines.items()}
    return tags, names or tag_file.classes(), table


def tags_from_xml(root: Path, listed: list[str], table: Path | None, names: Names) -> Told:
    """Tags from the objects of the XML annotations, those marked difficult too."""
    folder = root / "Annotations"
    return {name: xml_labels(folder / f"{name}.xml") for name in listed}, names or VOC_CLASSES, folder


def tags_from_masks(root: Path, listed: list[str], table: Path | None, names: Names) -> Told:
    """Tags from the class indices of the masks: only where the user asks for it."""
    classes, folder = names or VOC_CLASSES, mask_folder(root)
    if folder is None:
        raise DataError(
            f"{root}: tags were asked from the masks, but there is no {' or '.join(MASK_FOLDERS)}",
            f"write {root / 'tags.csv'} with the header image,labels and a line for each image",
        )
    return {name: mask_labels(folder / f"{name}.png", classes) for name in listed}, classes, folder


TAG_READERS: dict[TagSource, Callable[[Path, list[str], Path | None, Names], Told]] = {
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
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        tree = ElementTree.fromstring(content, parser=ElementTree.XMLParser(target=PlainTree()))
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: unreadable annotation ({error})", f"replace or delete {path}") from error
    labels = [(thing.findtext("name") or "").strip() for thing in tree.iterfind("object")]
    return tuple(dict.fromkeys(label for label in labels if label))


def mask_labels(path: Path, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names of the classes that a mask holds; None where there is no mask.

    Raises:
        DataError: the mask holds an index beyond the classes.
    """
    if not path.is_file():
        return None
    counts = np.bincount(read_mask(path).ravel(), minlength=IGNORE_INDEX + 1)
    found = [int(index) for index in np.flatnonzero(counts) if index not in (0, IGNORE_INDEX)]
    if found and found[-1] > len(classes):
        raise DataError(
            f"{path}: class index {found[-1]}, but there are {len(classes)} classes",
            f"list every class, one a line, in {path.parents[1] / 'classes.txt'}",
        )
    return tuple(classes[index - 1] for index in found)
