"""FiftyOne's labels.json: the labels of each image by its name, and the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss.config import Reading
from wsss.data.findings import BadData, Place
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource
from wsss.data.readers.json_fields import as_list, as_object, as_text, prefix_of, read_json
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.table import cell_words, table_images, table_source
from wsss.data.walking import is_file

LABELS_JSON = "labels.json"


def _sniff_fiftyone(root: Path, reading: Reading) -> str | None:
    path = root / LABELS_JSON
    if not is_file(path):
        return None
    start = prefix_of(path).lstrip()
    known = start.startswith("{") and '"labels"' in start and '"classes"' in start and '"images"' not in start
    return f"{LABELS_JSON} with classes and labels" if known else None


def _open_fiftyone(root: Path, options: Options) -> AnnotatedSource:
    """Names of images to a word, a number, a list of them or null, which is unlabelled."""
    path = root / LABELS_JSON
    whole = Place(path)
    content = as_object(read_json(path), "it", whole)
    labels = as_object(content.get("labels"), "labels", whole)
    classes = [as_text(name, "a class", whole) for name in as_list(content.get("classes"), "classes", whole)]
    images = []
    for name, cell in labels.items():
        place = Place(path, entry=name)
        try:
            words = None if cell is None else cell_words(cell, place, lambda text: [text], ())
        except BadData as error:
            options.note(error)
            continue
        named = None if words is None else tuple(_by_number(word, classes) for word in words)
        images.append(AnnotatedImage(written=name, split=ONLY_SPLIT, labels=named, place=place))
    return table_source(root, options, images, classes, path)


def _by_number(word: str, classes: Sequence[str]) -> str:
    return classes[int(word)] if word not in classes and word.isdecimal() and int(word) < len(classes) else word


FIFTYONE = Reader(
    name="fiftyone",
    looks_for=f"{LABELS_JSON} with classes",
    sniff=_sniff_fiftyone,
    open=_open_fiftyone,
    photographs=table_images,
    lists_all=False,
)
