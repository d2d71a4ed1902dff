"""COCO instances: official files, and exports of Roboflow, CVAT, Label Studio and iNaturalist.

Images and categories are found by their ids, which are arbitrary. What a crowd means depends on who wrote the file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsss.config import Reading
from wsss.data.drawn import DrawnImage, Shape, paint_image
from wsss.data.findings import BadData, Finding, Note, Place
from wsss.data.masks import IGNORE_INDEX
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource, below
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.coco_cache import open_coco
from wsss.data.readers.coco_file import AREA, BOX, CROWD, CocoFile, area_at, place
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.reader import Options, Reader
from wsss.errors import DataError, UsageError

if TYPE_CHECKING:
    from wsss.data.records import Record

PATTERNS = ("*.json", "annotations/*.json", "*/_annotations.coco.json")
STRANGERS = ("captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_")
"""Files of other tasks that lie beside the instances."""
SAMPLE = 2**16
"""Bytes of the start and of the end that are looked at to recognise a file."""
KEYS = tuple(re.compile(rf'"{key}"\s*:\s*\[') for key in ("images", "categories"))


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """A ``Truth``: the objects of some images, read from the COCO files when a mask is asked for.

    Attributes:
        images: size, place, and of each object its class index and its bytes in the file, by name of the image.
    """

    images: Mapping[str, tuple[tuple[int, int] | None, Place, tuple[tuple[int, int, int], ...]]]

    def has(self, record: Record) -> bool:
        """Whether all objects of the image have an area."""
        return record.name in self.images

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The label map; see ``paint_image`` for errors."""
        if record.name not in self.images:
            return None
        size, where, objects = self.images[record.name]
        shapes = tuple(Shape(index, area_at(where.path, start, length)) for index, start, length in objects)
        return paint_image(DrawnImage(shapes, where, size), record.upright_size())


@dataclass(frozen=True, slots=True)
class _Truths:
    """Makes the truth of a split; ``objects`` has the annotations of each image of each file by image id."""

    files: Sequence[CocoFile]
    objects: Sequence[Mapping[Hashable, Sequence[int]]]
    ignored: Sequence[bool]

    def __call__(self, rules: ClassRules, found: Mapping[str, AnnotatedImage]) -> CocoTruth | None:
        truth = {}
        for name, image in found.items():
            number, row = image.key
            file = self.files[number]
            if not any(flag & AREA for flag in file.flags):
                continue
            ones = self.objects[number].get(file.images[row][0], ())
            if all(file.flags[one] & AREA for one in ones):
                drawn = tuple(self._object(rules, number, one) for one in ones)
                truth[name] = (image.size, image.place, drawn)
        return CocoTruth(truth) if truth else None

    def _object(self, rules: ClassRules, number: int, one: int) -> tuple[int, int, int]:
        file = self.files[number]
        crowd = file.flags[one] & CROWD and self.ignored[number]
        label = file.categories[file.ids[file.kinds[one]]][0]
        return (IGNORE_INDEX if crowd else rules.index(label), file.starts[one], file.lengths[one])


def _candidates(root: Path, reading: Reading) -> list[Path]:
    """The COCO files of a folder; files of other tasks only where there is nothing else."""
    if reading.tags is not None:
        return [reading.tags] if reading.tags.suffix.lower() == ".json" and _is_coco(reading.tags) else []
    paths = sorted({path for pattern in PATTERNS for path in root.glob(pattern) if _is_coco(path)})
    return [path for path in paths if not path.name.startswith(STRANGERS)] or paths


def _is_coco(path: Path) -> bool:
    """Whether the first and last bytes of a file look like COCO."""
    text = _ends(path)
    if text is None:
        return False
    is_object = text.removeprefix("\xef\xbb\xbf").lstrip().startswith("{")
    return is_object and all(key.search(text) for key in KEYS)


def _ends(path: Path) -> str | None:
    """The first and last bytes of a file, a character each; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(SAMPLE)
            file.seek(max(len(head), path.stat().st_size - SAMPLE))
            return (head + file.read(SAMPLE)).decode("latin-1")
    except OSError:
        return None


def _nearly(root: Path) -> tuple[str, str] | None:
    """A JSON file of annotations or results without a list of images or categories."""
    for path in sorted({path for pattern in PATTERNS for path in root.glob(pattern)}):
        text = _ends(path)
        if text is None or '"image_id"' not in text or '"category_id"' not in text:
            continue
        missing = [key for key in ("images", "categories") if not re.search(rf'"{key}"\s*:\s*\[', text)]
        if missing and text.lstrip("\xef\xbb\xbf \r\n\t").startswith("["):
            what = f"{path.name} is a list of COCO results, without images and categories"
            return what, "give the file of annotations that it was made for"
        if missing:
            what = f"{path.name} has annotations as COCO files do, but no list of {' and '.join(missing)}"
            return what, "export it again with all three lists: images, annotations, categories"
    return None


def _sniff(root: Path, reading: Reading) -> str | None:
    files = _candidates(root, reading)
    return f"COCO annotations, {files[0].name}" if files else None


def _split_of(path: Path, root: Path) -> str:
    """The split that a file holds, by its name or its folder."""
    stem = path.stem.removeprefix("instances_")
    if stem.lower() not in ("result", "annotations", "coco", "labels", "instances", "_annotations.coco"):
        return stem
    folder = below(path, root).rstrip("/") if path.is_relative_to(root) else ""
    return ONLY_SPLIT if folder in ("", "annotations") else folder.rpartition("/")[2]


def _open(root: Path, options: Options) -> AnnotatedSource:
    """Scan all files of the folder.

    Raises:
        UsageError: tags are asked from where this format has none.
        DataError: a file is at fault, or two files hold one split.
    """
    if options.reading.tags_from in ("xml", "masks"):
        raise UsageError(f"{root}: COCO files have no tags from {options.reading.tags_from}", "--tags-from shapes")
    paths = _candidates(root, options.reading)
    if not paths:
        raise DataError(f"{root}: no COCO file there", "give it: --tags FILE.json")
    by_split: dict[str, Path] = {}
    for path in paths:
        split = _split_of(path, root)
        if split in by_split:
            what = f"{by_split[split].name} and {path.name} both hold the split '{split}'"
            raise BadData.at("table-format", path, what, f"choose one: --tags {path}")
        by_split[split] = path
    files = [open_coco(path, options.note, options.reporter) for path in paths]
    photographs = all_images(root, options.note)
    dropped = _roots(files)
    objects = [_objects(file, options.note) for file in files]
    declared = _declared(files, dropped)
    ignored = [_crowds_ignored(file, options) for file in files]
    images = [
        image
        for number, (split, file) in enumerate(zip(by_split, files, strict=True))
        for image in _images(number, split, file, objects[number], root)
    ]
    uploads = any(above == "" for file in files for _, above in file.categories.values())
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=images,
        declared=declared,
        source=paths[0] if len(paths) == 1 else root,
        finder=ImageFinder(photographs, uploads=uploads),
        truth_of=_Truths(files, objects, ignored),
        drawn=any(flag & (AREA | BOX) for file in files for flag in file.flags),
    )


def _objects(file: CocoFile, note: Note) -> dict[Hashable, list[int]]:
    """The annotations of each image id; those of unknown images or categories are noted and left out."""
    known = {key for key, _, _ in file.images}
    found: dict[Hashable, list[int]] = defaultdict(list)
    lost = []
    for one, (row, kind) in enumerate(zip(file.rows, file.kinds, strict=True)):
        image, category = file.ids[row], file.ids[kind]
        if image in known and category in file.categories:
            found[image].append(one)
        else:
            lost.append(f"image {image}, category {category}")
    if lost:
        what = f"{len(lost)} annotations name an image or category id that is not in the file (first: {lost[0]})"
        note(BadData.at("annotation-unreadable", file.path, what, "delete them or export the file again"))
    return dict(found)


def _images(
    number: int, split: str, file: CocoFile, objects: Mapping[Hashable, Sequence[int]], root: Path
) -> Iterator[AnnotatedImage]:
    base = below(file.path, root) if file.path.is_relative_to(root) else ""
    for row, (key, name, size) in enumerate(file.images):
        labels = dict.fromkeys(file.categories[file.ids[file.kinds[one]]][0] for one in objects.get(key, ()))
        yield AnnotatedImage(
            written=name,
            split=split,
            labels=tuple(labels),
            place=place(file, name),
            base=base,
            size=size,
            key=(number, row),
        )


def _roots(files: Sequence[CocoFile]) -> set[tuple[Hashable, str]]:
    """Categories that only stand above others: named as supercategory by another, and used in no file."""
    every = {(key, *names) for file in files for key, names in file.categories.items()}
    used = {file.ids[kind] for file in files for kind in set(file.kinds)}
    roots = {
        (key, name)
        for key, name, _ in every
        if key not in used and any(above == name and other != key for other, _, above in every)
    }
    return roots if len(roots) < len({(key, name) for key, name, _ in every}) else set()


def _declared(files: Sequence[CocoFile], dropped: set[tuple[Hashable, str]]) -> list[str]:
    """Class names by category id."""
    every = {(key, name) for file in files for key, (name, _) in file.categories.items()} - dropped
    return [name for _, name in sorted(every, key=lambda one: (isinstance(one[0], str), one))]


def _crowds_ignored(file: CocoFile, options: Options) -> bool:
    """Whether the crowds of a file are ignored pixels rather than objects; says which.

    Raises:
        BadData: nothing in the file tells.
    """
    crowds = sum(flag & CROWD for flag in file.flags)
    if not crowds:
        return False
    told = options.reading.crowd
    if told is None:
        if file.is_official() and not file.attributes:
            told = "ignore"
        elif file.attributes or crowds == len(file.flags):
            told = "object"
        else:
            what = f"{crowds} of {len(file.flags)} annotations are crowds and nothing says what they mean"
            raise BadData.at("table-format", file.path, what, "choose --crowd ignore or --crowd object")
    what = f"{crowds} crowds are read as {'ignored pixels' if told == 'ignore' else 'objects'}"
    finding = Finding("crowd-read", Place(file.path), what)
    options.note(BadData(f"{file.path}: {what}", "--crowd ignore|object", [finding]))
    return told == "ignore"


COCO = Reader(
    name="coco",
    looks_for="a COCO file (annotations/instances_*.json, SPLIT/_annotations.coco.json, result.json)",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
    nearly=_nearly,
)
