"""Class sub-folders: ``[SPLIT/]CLASS/.../IMAGE``, one tag an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from wsss.config import Reading
from wsss.data.findings import Place
from wsss.data.images import split_suffix
from wsss.data.photographs import Photographs, all_images, find_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource
from wsss.data.readers.class_rules import BACKGROUND
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.reader import Options, Reader
from wsss.data.records import counted
from wsss.data.walking import is_folder, names_in
from wsss.reporting import first_few

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
"""Folders that are splits; in lower case."""
NO_CLASSES = frozenset(
    {
        *("images", "image", "img", "imgs", "masks", "mask", "labels", "label", "annotations", "annotation", "ann"),
        *("jpegimages", "imagesets", "segmentationclass", "segmentationclassaug", "segmentationobject", "saliency"),
    }
)
"""Folders of other formats, which are no classes; in lower case."""
AROUND = frozenset({"images", "image", "img", "imgs", "data", "dataset", "jpegimages"})
"""Folders around class folders; in lower case."""
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".xls", ".xlsx", ".parquet", ".yaml", ".yml", ".npy", ".tar")
"""Endings of files that hold labels: where one lies beside the folders, these may be no classes."""
DESCRIPTIONS = frozenset({"expected.json", "dataset_info.json", "dataset-metadata.json", "datapackage.json"})
"""Files of such endings that describe a data set and label no image; in lower case."""


def _sniff(root: Path, reading: Reading) -> str | None:
    asked = reading.format == CLASS_FOLDERS.name
    if reading.tags is not None or (not asked and _beside(root)):
        return None
    starts = _starts(root, asked)
    classes = {name for start in starts for name in _class_folders(start, asked)}
    if not classes or (starts == [root] and sum(name.lower() not in SPLITS for name in classes) < 2):
        return None
    if not asked and any(_is_table(name) for start in starts for name in names_in(start)):
        return None
    split = f" in {' and '.join(start.name for start in starts)}" if starts != [root] else ""
    return f"images in {len(classes)} folders{split}, each a class"


def _beside(folder: Path) -> list[str]:
    """Names of tables and images in a folder."""
    return [name for name in names_in(folder) if _is_table(name) or split_suffix(name)[1]]


def _nearly(root: Path) -> tuple[str, str] | None:
    """Folders of images with a file beside them that may hold the labels instead."""
    inner = next((root / name for name in names_in(root) if name.lower() in AROUND and is_folder(root / name)), None)
    if inner is not None and _sniff(inner, Reading()) is not None:
        return f"no table of tags there, but folders in {inner.name}/ that may be classes", f"give {inner} instead"
    starts = _starts(root)
    classes = sorted({name for start in starts for name in _class_folders(start)})
    beside = [name for folder in dict.fromkeys([root, *starts]) for name in _beside(folder)]
    if len(classes) < 2 or not beside:
        return None
    folders = f"{counted(len(classes), 'folder')} of images ({first_few(classes)})"
    what = f"no table of tags there, and {folders} that may be classes"
    return f"{what}, but {first_few(beside)} beside them", f"--format {CLASS_FOLDERS.name}  # or move {beside[0]} away"


def _starts(root: Path, asked: bool = False) -> list[Path]:
    """The folders that hold class folders: the splits where there are such, else the root."""
    splits = [root / name for name in names_in(root) if name.lower() in SPLITS]
    return splits if any(_class_folders(folder, asked) for folder in splits) else [root]


def _class_folders(folder: Path, asked: bool = False) -> list[str]:
    """Names of the folders in a folder that hold images without annotations.

    None if the name of one of them is that of another format's folder, unless this format was asked for.
    """
    names = [name for name in names_in(folder) if is_folder(folder / name)]
    if not asked and any(name.lower() in NO_CLASSES for name in names):
        return []
    return [name for name in names if _holds_image(folder / name)]


def _holds_image(folder: Path) -> bool:
    """Whether there is an image below a folder without an annotation file of its name; stops at the first image."""
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        first = next((name for name in files if split_suffix(name)[1] and name[0] != "."), None)
        if first is not None:
            beside = {split_suffix(first)[0] + ending for ending in (".xml", ".json")} | {f"{first}.json"}
            return beside.isdisjoint(files) and not any(_is_table(name) for name in files)
    return False


def _is_table(name: str) -> bool:
    return name.lower().endswith(TABLES) and name.lower() not in DESCRIPTIONS


def _open(root: Path, options: Options) -> AnnotatedSource:
    photographs = find_images(root, note=options.note)
    asked = options.reading.format == CLASS_FOLDERS.name
    splits = {start.name for start in _starts(root, asked) if start != root}
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=tuple(_images(photographs, splits)),
        declared=None,
        source=root,
        finder=ImageFinder(photographs),
    )


def _images(photographs: Photographs, splits: set[str]) -> Iterator[AnnotatedImage]:
    """Each image with the folder that is its class; without a tag where it lies in none."""
    for name, file in photographs.files.items():
        parts = file.split("/")[:-1]
        split = parts.pop(0) if parts and parts[0] in splits else ONLY_SPLIT
        if splits and split == ONLY_SPLIT:
            parts = []
        labels = None if not parts else () if parts[0].lower() in BACKGROUND else (parts[0],)
        place = Place(photographs.folder / file)
        yield AnnotatedImage(written=file, split=split, labels=labels, place=place, found=name)


CLASS_FOLDERS = Reader(
    name="class-folders",
    looks_for="folders of images named after classes ([train/]CLASS/IMAGE)",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=True,
    nearly=_nearly,
)
