"""Open a data folder of any layout as tagged records. No mask is opened unless tags are asked from masks."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from wsss.data.findings import BadData, Finding, Note, refuse
from wsss.data.images import IMAGE_SUFFIXES, list_images, split_suffix
from wsss.data.masks import IGNORE_INDEX
from wsss.data.readers.folder import (
    ListedImage,
    Listing,
    first_few,
    folder_images,
    image_folder,
    open_tag_file,
    read_folder,
)
from wsss.data.readers.tag_table import TAG_FILES, TagFile, find_tag_file, read_text
from wsss.data.readers.voc import IMAGES, is_voc, read_voc, voc_splits
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError, UsageError

Layout = Literal["auto", "voc", "folder"]
TagsFrom = Literal["auto", "file", "xml", "masks"]

CLASS_FILE = "classes.txt"
MAX_CLASSES = IGNORE_INDEX - 1
"""Label maps hold 8 bits, of which 0 is the background and 255 is ignored."""
USUAL_PLACES = ("VOC2012", "VOCdevkit/VOC2012")
"""Where the data folder often lies when its parent was given."""


def open_data(
    root: Path,
    *,
    split: str | None = None,
    layout: Layout = "auto",
    tags: Path | None = None,
    tags_from: TagsFrom = "auto",
    classes: Sequence[str] | None = None,
    need_tags: bool = True,
    note: Note = refuse,
) -> TaggedSet:
    """Open one split of a data folder (data/README.md shows the layouts).

    Args:
        root: the data folder.
        split: its name; may be left out where there is only one.
        layout: "auto" takes "voc" where there are JPEGImages and ImageSets, else "folder".
        tags: tags.csv or tags.json elsewhere than at the root.
        tags_from: "auto" takes the table, else the XML annotations; "masks" must be asked for.
        classes: names a checkpoint knows; tags get their indices from these.
        need_tags: else images of the VOC layout may have none, as those of a test split.
        note: told of faults; where it goes on, what is at fault is left out.

    Raises:
        UsageError: the split is unknown, or the arguments contradict each other.
        DataError: the folder does not fit; the message says where and why.
    """
    root = Path(root)
    if tags is not None and tags_from in ("xml", "masks"):
        raise UsageError(f"tags from {tags} and from {tags_from} at once", "leave out one of the two")
    kind = find_layout(root, layout, tags)
    own, given = read_classes(root / CLASS_FILE, note), tuple(classes or ()) or None
    names = own if tags_from == "masks" else own or given  # a mask's indices never follow a checkpoint
    if kind == "voc":
        name = choose_split(root, split, tuple(voc_splits(root)))
        listing = read_voc(root, name, source=tags_from, table=tags, names=names, need_tags=need_tags, note=note)
    else:
        table = folder_table(root, tags, tags_from, names, note)
        listing = read_folder(root, table, choose_split(root, split, table.splits()), names, note=note)
    if own and given and listing.mask_folder and own != given[: len(own)]:
        raise order_differs(root, own, given)
    known = checked_classes(given or listing.classes, listing.source, note)
    return TaggedSet(
        root=root,
        split=listing.split,
        classes=known,
        records=index_tags(listing, known, root / CLASS_FILE, note),
        mask_folder=listing.mask_folder,
    )


def list_splits(
    root: Path, layout: Layout = "auto", tags: Path | None = None, *, note: Note = refuse
) -> tuple[str, ...]:
    """Names of the splits of a data folder.

    Raises:
        DataError: the folder does not fit.
    """
    root = Path(root)
    if find_layout(root, layout, tags) == "voc":
        return tuple(voc_splits(root))
    return folder_table(root, tags, note=note).splits()


def open_unlabelled(path: Path) -> tuple[Record, ...]:
    """Records without tags: of one image, or of every image below a folder, sorted by name.

    Of a data folder those are its images, called as in its splits; masks and saliency maps are none.

    Raises:
        DataError: there is no such path, it is no image, or the folder holds none.
    """
    path = Path(path)
    endings = " ".join(IMAGE_SUFFIXES)
    if path.is_dir():
        base, files = photographs(path)
        if not files:
            raise DataError(f"{path}: no image in it (files ending in {endings})", f"ls -R {path}")
        return tuple(Record(name=name, image=base / file, tags=()) for name, file in files.items())
    if not path.exists():
        raise DataError(f"{path}: no such image or folder", f"ls {path.parent}")
    name, suffix = split_suffix(path.name)
    if not suffix:
        raise DataError(f"{path}: not an image (files ending in {endings})", "convert it to PNG or JPEG")
    return (Record(name=name, image=path, tags=()),)


def photographs(folder: Path) -> tuple[Path, dict[str, str]]:
    """Where the images of a folder lie, and their paths below that by name; a data folder has others that are none."""
    if is_voc(folder):
        return folder / IMAGES, list_images(folder / IMAGES)
    if find_tag_file(folder) is not None:
        return image_folder(folder), folder_images(folder)
    return folder, list_images(folder)


def find_layout(root: Path, layout: Layout, tags: Path | None) -> Literal["voc", "folder"]:
    """The layout of a data folder.

    Raises:
        DataError: it is missing, or has not the layout asked for, or none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such data folder", f"ls {root.parent}")
    voc, table = is_voc(root), tags is not None or find_tag_file(root) is not None
    if layout in ("auto", "voc") and voc:
        return "voc"
    if layout in ("auto", "folder") and table:
        return "folder"
    nested = next((place for place in USUAL_PLACES if is_voc(root / place)), None)
    sought = {"voc": "JPEGImages with ImageSets", "folder": " or ".join(TAG_FILES)}
    wanted = sought.values() if layout == "auto" else [sought[layout]]
    raise DataError(
        f"{root}: no data set there; looked for {', and for '.join(wanted)}",
        f"give {root / nested} instead"
        if nested
        else f"write {root / 'tags.csv'}: header image,labels and a line for each image (see data/README.md)",
    )


def folder_table(
    root: Path,
    tags: Path | None,
    tags_from: TagsFrom = "auto",
    names: Sequence[str] | None = None,
    note: Note = refuse,
) -> TagFile:
    """The table of a folder data set."""
    if tags_from in ("xml", "masks"):
        raise UsageError(
            f"{root}: tags from {tags_from} need the layout of PASCAL VOC; a folder has its table of tags",
            "take the tags from the file",
        )
    path = tags or find_tag_file(root) or root / TAG_FILES[0]
    return open_tag_file(root, path, known=names or (), note=note)


def choose_split(root: Path, split: str | None, splits: tuple[str, ...]) -> str:
    """The split asked for, or the only one."""
    if split in splits:
        return split
    if split is None and len(splits) == 1:
        return splits[0]
    problem = f"no split '{split}'" if split is not None else "which split?"
    near = get_close_matches(split or "", splits, n=1)
    raise UsageError(
        f"{root}: {problem}{f' (did you mean {near[0]!r}?)' if near else ''}; there are {', '.join(splits)}",
        "choose one of these splits",
    )


def read_classes(path: Path, note: Note = refuse) -> tuple[str, ...] | None:
    """Class names, one a line; None where there is no such file."""
    if not path.is_file():
        return None
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    return checked_classes(names, path, note)


def checked_classes(names: tuple[str, ...], source: Path, note: Note = refuse) -> tuple[str, ...]:
    """The class names, if label maps can hold them.

    Raises:
        DataError: there are none or too many; or, unless ``note`` goes on, one is there twice, or the background is.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        what, fix = f"class names listed twice ({first_few(twice)})", f"keep each name once in {source}"
        note(BadData.at("class-twice", source, what, fix))
    if any(name.lower() == "background" for name in names):
        what = "'background' is a class there, but it always has index 0 and is never listed"
        note(BadData.at("class-background", source, what, f"take it out of {source}"))
    if not 1 <= len(names) <= MAX_CLASSES:
        what = f"{len(names)} classes; label maps hold 1 to {MAX_CLASSES}"
        raise BadData.at("class-count", source, what, f"correct {source}")
    return names


def index_tags(listing: Listing, classes: tuple[str, ...], class_file: Path, note: Note = refuse) -> tuple[Record, ...]:
    """Records with class indices for labels; without their unknown labels where ``note`` goes on.

    Raises:
        DataError: labels that are no class; each is named, with the nearest class.
    """
    index = {name: k for k, name in enumerate(classes)}
    strange = [(label, image) for image in listing.images for label in image.labels if label not in index]
    if strange:
        note(unknown_tags(strange, classes, listing.source, class_file))
    return tuple(
        Record(
            name=image.name,
            image=image.image,
            tags=tuple(sorted(index[label] for label in image.labels if label in index)),
        )
        for image in listing.images
    )


def unknown_tags(
    strange: list[tuple[str, ListedImage]], classes: tuple[str, ...], source: Path, class_file: Path
) -> BadData:
    """Labels that are no class, each with an image that has it."""
    unknown = dict(strange)
    meant = {label: f"'{label}'{nearest(label, classes)}" for label in unknown}
    named = [f"{meant[label]} of {unknown[label].name}" for label in sorted(unknown)]
    return BadData(
        f"{source}: unknown tags: {first_few(named, 5)}; the classes are {first_few([*classes], 20)}",
        f"correct the tags, or list every class in {class_file} (a model keeps those it was trained on)",
        [
            Finding("tag-unknown", image.place, f"unknown tag {meant[label]} of {image.name}")
            for label, image in strange
        ],
    )


def nearest(label: str, classes: Sequence[str]) -> str:
    """The class that was probably meant, in brackets, or nothing."""
    lower = {name.lower(): name for name in classes}
    near = get_close_matches(label.lower(), lower, n=1)
    return f" (did you mean '{lower[near[0]]}'?)" if near else ""


def order_differs(root: Path, own: tuple[str, ...], given: tuple[str, ...]) -> DataError:
    """Masks count their classes in one order and the model in another: every score would be wrong."""
    return DataError(
        f"{root / CLASS_FILE}: the masks' classes are {first_few([*own], 20)}, the model's are"
        f" {first_few([*given], 20)}",
        "use a model trained with this classes.txt, or move the mask folder away if nothing is scored",
    )
