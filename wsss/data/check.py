"""`wsss data check`: everything that is wrong or odd in a data set, by the rules of the readers themselves."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsss.data.class_names import alike_names, odd_labels
from wsss.data.dataset import CLASS_FILE, Layout, TagsFrom, find_layout, list_splits, open_data
from wsss.data.findings import KINDS, BadData, Finding, Place, Severity
from wsss.data.images import UnreadableImage, list_images
from wsss.data.masks import read_mask, unknown_indices
from wsss.data.readable import ImageFacts, examine_image, in_threads
from wsss.data.readers.folder import NOT_IMAGES, first_few, folder_images, image_folder
from wsss.data.readers.tag_table import find_tag_file, read_tag_file
from wsss.data.readers.voc import IMAGES
from wsss.data.records import Record, TaggedSet
from wsss.files import write_whole
from wsss.reporting import Reporter

PATCH = 16
"""Side, in pixels, of the patches of most backbones."""
NARROW = 8
"""Times that one side of an image is longer than the other, from which on crops show little of it."""
LONG_SUFFIX = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
"""Formats that are not called after their suffix."""
OTHER_IMAGES = (".avif", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".pgm", ".ppm", ".svg", ".tga")
"""Endings of pictures that no reader looks at."""
COLUMNS = ("severity", "kind", "where", "what")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What a data folder holds.

    Attributes:
        root: the folder.
        splits: images that can be opened, by split.
        classes: of these, those that have each class; one of several splits counts once.
        classes_by_split: the same within each split.
        images: files examined.
        findings: errors first, those of a kind together.
    """

    root: Path
    splits: dict[str, int]
    classes: dict[str, int]
    classes_by_split: dict[str, dict[str, int]]
    images: int
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """Findings by kind, in the order of ``findings``."""
        return dict(Counter(finding.kind for finding in self.findings))

    def count(self, severity: Severity) -> int:
        """How many findings are so bad."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "data": str(self.root),
            "splits": self.splits,
            "classes": self.classes,
            "images": self.images,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "kinds": self.counts(),
            "findings": [finding.as_row() for finding in self.findings],
        }


class Collected(list[Finding]):
    """A ``Note`` that keeps what it is told."""

    def __call__(self, error: BadData) -> None:
        """Keep it; the reader goes on."""
        self.extend(error.findings)


def inspect_data(
    root: Path,
    reporter: Reporter,
    *,
    split: str | None = None,
    layout: Layout = "auto",
    tags: Path | None = None,
    tags_from: TagsFrom = "auto",
    saliency: Path | None = None,
    masks: bool = True,
) -> Inspection:
    """Find all that a training or an evaluation would refuse, skip or read in a way that surprises.

    Args:
        root: the data folder.
        reporter: progress.
        split: this one alone; None takes all.
        layout: see ``open_data``, as for ``tags`` and ``tags_from``.
        tags: see there.
        tags_from: see there.
        saliency: a folder of saliency maps, one for each image.
        masks: also the masks of the data folder.

    Raises:
        UsageError: see ``open_data``.
        DataError: there is no data set.
    """
    root, found = Path(root), Collected()
    kind = find_layout(root, layout, tags)
    sets = open_splits(root, split, layout, tags, tags_from, found)
    listed = list({record.name: record for tagged in sets for record in tagged.records}.values())
    if sets:
        found += table_names(root, tags, tags_from)
    base = root / IMAGES if kind == "voc" else image_folder(root)
    found += ignored_files(base, skip=NOT_IMAGES if base == root else ())
    for tagged in sets:
        found += odd_classes(tagged)
        found += missing_masks(tagged) if masks else ()
    others = unlisted(root, kind, listed, found) if split is None and (kind == "folder" or not listed) else []
    layers = {record.name: tagged for tagged in sets if masks for record in tagged.records}
    reporter.begin("checking images", len(listed) + len(others))
    jobs = [Job(record=record, tagged=layers.get(record.name), saliency=saliency) for record in listed]
    jobs += [Job(record=record, tagged=None, saliency=None) for record in others]
    found += inspect_images(jobs, reporter)
    order = {name: position for position, name in enumerate(KINDS)}
    unique = sorted(dict.fromkeys(found), key=lambda one: (one.severity, order[one.kind]))
    return Inspection(
        root=root,
        splits={tagged.split: len(tagged) for tagged in sets},
        classes=replace(sets[0], records=tuple(listed)).images_by_class() if sets else {},
        classes_by_split={tagged.split: tagged.images_by_class() for tagged in sets},
        images=len(jobs),
        findings=tuple(unique),
    )


def open_splits(
    root: Path, split: str | None, layout: Layout, tags: Path | None, tags_from: TagsFrom, note: Collected
) -> list[TaggedSet]:
    """The splits that can be opened; why the others cannot is noted."""
    sets = []
    try:
        names = list_splits(root, layout, tags, note=note)
    except BadData as error:
        note(error)
        return []
    for name in names if split is None else (split,):
        try:
            sets.append(open_data(root, split=name, layout=layout, tags=tags, tags_from=tags_from, note=note))
        except BadData as error:
            note(error)
    return sets


def unlisted(root: Path, kind: str, listed: Sequence[Record], note: Collected) -> list[Record]:
    """Images on disk that no split lists."""
    base = root / IMAGES if kind == "voc" else image_folder(root)
    files = list_images(base, note=note) if kind == "voc" else folder_images(root, note=note)
    known = {record.name for record in listed}
    return [Record(name=name, image=base / file, tags=()) for name, file in files.items() if name not in known]


def ignored_files(folder: Path, skip: Sequence[str]) -> Iterator[Finding]:
    """Pictures whose ending no reader looks for."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and (place != str(folder) or name not in skip)]
        for file in sorted(files):
            path = Path(place) / file
            if path.suffix.lower() in OTHER_IMAGES and file[0] != ".":
                yield Finding("file-ignored", Place(path), f"files ending in {path.suffix} are not read")


def odd_classes(tagged: TaggedSet) -> Iterator[Finding]:
    """Classes that no image of a split holds, and pairs that may be one class."""
    path = tagged.root / CLASS_FILE
    place = Place(path if path.is_file() else tagged.root)
    seen = {tag for record in tagged.records for tag in record.tags}
    for index, name in enumerate(tagged.classes):
        if index not in seen:
            yield Finding("class-unused", place, f"no image of split '{tagged.split}' has the class '{name}'")
    yield from alike_names(tagged.classes, place)


def table_names(root: Path, tags: Path | None, tags_from: TagsFrom) -> Iterator[Finding]:
    """What is odd about the class names where nothing but the labels of a table, read before, tells them."""
    path = tags or find_tag_file(root)
    if path is not None and tags_from in ("auto", "file") and not (root / CLASS_FILE).is_file():
        yield from odd_labels(read_tag_file(path, note=Collected()))


def missing_masks(tagged: TaggedSet) -> Iterator[Finding]:
    """One finding for all images of a split that cannot be scored, where there is a mask folder."""
    if tagged.mask_folder is None:
        return
    names = [record.name for record in tagged.records if tagged.mask_path(record) is None]
    if names:
        what = f"{len(names)} of {len(tagged)} images of split '{tagged.split}' have no mask ({first_few(names)})"
        yield Finding("mask-missing", Place(tagged.mask_folder), what)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """An image to examine, with the set whose mask is examined too and the folder of its saliency map."""

    record: Record
    tagged: TaggedSet | None
    saliency: Path | None


def inspect_images(jobs: Sequence[Job], reporter: Reporter) -> Iterator[Finding]:
    """All that is found in the images, their masks and saliency maps, and copies among the images."""
    first: dict[bytes, str] = {}
    for job, (facts, findings) in zip(jobs, in_threads(inspect_image, jobs), strict=True):
        reporter.advance()
        yield from findings
        if facts is not None:
            original = first.setdefault(facts.digest, job.record.name)
            if original != job.record.name:
                yield Finding("image-copy", Place(job.record.image), f"the same bytes as {original}")


def inspect_image(job: Job) -> tuple[ImageFacts | None, list[Finding]]:
    """What is found in one image, its mask and its saliency map; facts where it can be read."""
    facts: ImageFacts | None = None
    findings: list[Finding] = []
    try:
        facts = examine_image(job.record.image)
        findings += remarks(job.record.image, facts)
    except UnreadableImage as error:
        findings += error.findings
    size = None if facts is None else facts.size
    mask = None if job.tagged is None else job.tagged.mask_path(job.record)
    if mask is not None and job.tagged is not None:
        findings += inspect_layer("mask", mask, size, len(job.tagged.classes))
    if job.saliency is not None:
        findings += inspect_layer("saliency", job.saliency / f"{job.record.name}.png", size)
    return facts, findings


def remarks(path: Path, facts: ImageFacts) -> Iterator[Finding]:
    """What is odd about an image that can be read, and what the readers make of it."""
    place, (height, width) = Place(path), facts.size
    suffix, shape = path.suffix.lower(), f"{width}x{height} (width x height)"
    if facts.format != LONG_SUFFIX.get(suffix, suffix[1:].upper()):
        yield Finding("image-suffix", place, f"a {facts.format} file; it is read as such")
    if facts.bits > 8:
        yield Finding("image-16-bit", place, f"{facts.bits} bits a sample; the upper 8 are read")
    if facts.mode == "CMYK":
        yield Finding("image-cmyk", place, "CMYK; turned into RGB without its colour profile")
    if facts.transparent:
        yield Finding("image-alpha", place, "transparent pixels show the colour stored under them")
    if facts.frames > 1:
        yield Finding("image-animated", place, f"{facts.frames} frames or pages; one of them is read")
    if min(facts.size) < PATCH:
        yield Finding("image-small", place, f"{shape}: smaller than a patch of {PATCH} pixels; it is enlarged")
    if max(facts.size) > NARROW * min(facts.size):
        ratio = max(facts.size) / min(facts.size)
        yield Finding("image-narrow", place, f"{shape}: one side is {ratio:.0f} times the other; crops show little")


def inspect_layer(
    what: str, path: Path, size: tuple[int, int] | None, num_classes: int | None = None
) -> Iterator[Finding]:
    """What is wrong with a mask or saliency map.

    Args:
        what: "mask" or "saliency".
        path: of the PNG.
        size: (H, W) of its image, None where that is unknown.
        num_classes: of a mask; None judges no pixel values.
    """
    if not path.is_file():
        yield Finding(f"{what}-missing", Place(path), "no such file")
        return
    try:
        layer_HW = read_mask(path)
    except BadData as error:
        for finding in error.findings:
            yield Finding(finding.kind.replace("mask", what), finding.place, finding.what)
        return
    height, width = layer_HW.shape
    if size is not None and (height, width) != size:
        shapes = f"{width}x{height}, its image {size[1]}x{size[0]} (width x height)"
        turned = "; images are read upright, as their EXIF asks" if (width, height) == size else ""
        yield Finding(f"{what}-size", Place(path), shapes + turned)
    unknown = [] if num_classes is None else unknown_indices(layer_HW, num_classes)
    if unknown:
        named = first_few([str(index) for index in unknown], 5)
        yield Finding("mask-class", Place(path), f"class index {named}; there are {num_classes} classes")


def write_list(path: Path, findings: Iterable[Finding]) -> None:
    """Write findings as CSV; the file appears whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(finding.as_row() for finding in findings)
    write_whole(path, text.getvalue().encode("utf-8", errors="backslashreplace"))
