"""VOC's XML files beside the images, without split lists; folders called train, valid or test are splits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from wsss.config import Reading
from wsss.data.findings import BadData, Note, Place
from wsss.data.images import split_suffix
from wsss.data.photographs import Photographs, all_images, find_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource
from wsss.data.readers.annotations import xml_labels
from wsss.data.readers.class_folders import SPLITS
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.voc import IMAGES, LISTS
from wsss.data.walking import conventional, is_folder, names_in

ROOT_ELEMENT = re.compile(rb"<annotation[\s/>]")
PREFIX = 4096
"""Bytes of an XML file that are read to tell its kind."""


def _sniff(root: Path, reading: Reading) -> str | None:
    if is_folder(conventional(root, IMAGES)) and is_folder(conventional(root, LISTS)):
        return None
    for folder in (root, *(root / name for name in names_in(root) if is_folder(root / name))):
        names = names_in(folder)
        stems = {split_suffix(name)[0] for name in names if split_suffix(name)[1]}
        beside = next((name for name in names if name.lower().endswith(".xml") and name[:-4] in stems), None)
        if beside is not None and _is_annotation(folder / beside):
            return f"an XML file beside each image, such as {beside}"
    return None


def _is_annotation(path: Path) -> bool:
    """Whether the root element of an XML file is that of VOC."""
    try:
        with path.open("rb") as file:
            return ROOT_ELEMENT.search(file.read(PREFIX)) is not None
    except OSError:
        return False


def _open(root: Path, options: Options) -> AnnotatedSource:
    photographs = find_images(root, note=options.note)
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=tuple(_images(photographs, options.note)),
        declared=None,
        source=root,
        finder=ImageFinder(photographs),
    )


def _images(photographs: Photographs, note: Note) -> Iterator[AnnotatedImage]:
    """Each image with the XML file beside it, then XML files without an image; faulty XML files are noted."""
    root, files = photographs.folder, photographs.files
    written = {file[:-4]: file for file in sorted(photographs.others) if file.lower().endswith(".xml")}
    for name in dict.fromkeys((*files, *(name for name in written if _is_annotation(root / written[name])))):
        place = Place(root / written.get(name, files.get(name, name)))
        try:
            labels = xml_labels(root / written[name]) if name in written else None
        except BadData as error:
            note(error)
            continue
        first, _, rest = name.partition("/")
        split = first if rest and first.lower() in SPLITS else ONLY_SPLIT
        found = name if name in files else None
        yield AnnotatedImage(written=name, split=split, labels=labels, place=place, found=found)


VOC_FLAT = Reader(
    name="voc-flat",
    looks_for="VOC's XML files beside the images",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=True,
)
