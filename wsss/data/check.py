"""`wsss data check`: everything that is wrong or odd in a data set, found by the readers and the scan that runs use."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsss.config import Optimisation, Reading
from wsss.data.class_names import alike_names, odd_labels
from wsss.data.dataset import CLASS_FILE, list_splits, open_data
from wsss.data.facts import ImageFacts
from wsss.data.findings import KINDS, BadData, Finding, Place, Severity
from wsss.data.images import UnreadableImage
from wsss.data.index import Scan, scan_images
from wsss.data.layer_check import LayerJob, inspect_layers
from wsss.data.lessons import lessons
from wsss.data.near_names import NearNames, by_sight
from wsss.data.odd_names import odd_names
from wsss.data.photographs import Photographs
from wsss.data.readers.registry import find_reader
from wsss.data.readers.tag_table import TagFile, TagLine, find_tag_file, read_tag_file
from wsss.data.records import Record, Records, TaggedSet, counted
from wsss.data.splits import TRAIN_SPLITS, VAL_SPLITS, chosen_split, odd_splits, overlap
from wsss.data.walking import conventional, is_file, is_folder, names_in, near_file, walk
from wsss.files import write_whole
from wsss.reporting import Reporter, first_few

PATCH = 16
"""Side, in pixels, of the patches of most backbones."""
NARROW = 8
"""Images whose one side is more than this many times the other are reported: crops show little of them."""
LONG_SUFFIX = {
    **{**dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"), ".tif": "TIFF", ".tiff": "TIFF"},
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
}
"""Formats whose name is not their suffix."""
MASK_NAMES = frozenset(
    {
        *("mask", "masks_png", "png_masks", "mask_png", "gt", "groundtruth", "ground_truth", "segmentation", "seg"),
        *("segmentations", "segmentation_masks", "segmentationclass", "annotation", "annotations", "label", "labels"),
        *("target", "targets", "semantic", "semantics", "labelmaps", "label_maps"),
    }
)
"""Names that people give to a folder of masks beside "masks"; in lower case."""
SEPARATED = ("table",)
"""Formats beside the folder whose labels are separated by a character, which may be missing."""
COLUMNS = ("severity", "kind", "where", "what", "mend")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What a data folder holds.

    Attributes:
        root: the folder.
        splits: how many images each split lists.
        classes: how many of these images have each class; an image in several splits is counted once.
        classes_by_split: the same for each split.
        images: how many image files were examined.
        left_out: how many files and folders beside them are no images or are left out, by the reason.
        findings: errors first, findings of a kind together.
        lessons: what the tags of the split for training cannot teach (``wsss.data.lessons``), the worst first.
    """

    root: Path
    splits: dict[str, int]
    classes: dict[str, int]
    classes_by_split: dict[str, dict[str, int]]
    images: int
    left_out: dict[str, int]
    findings: tuple[Finding, ...]
    lessons: tuple[Finding, ...] = ()

    def counts(self) -> dict[str, int]:
        """Findings by kind, in the order of ``findings``."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Findings and lessons."""
        return self.findings + self.lessons

    def count(self, severity: Severity) -> int:
        """How many findings are errors, or warnings."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "data": str(self.root),
            "splits": self.splits,
            "classes": self.classes,
            "images": self.images,
            "left_out": self.left_out,
            "errors": self.count("error"),
            "warnings": self.count("warning") + len(self.lessons),
            "kinds": dict(Counter(finding.kind for finding in self.all_findings)),
            "findings": [finding.as_row() for finding in self.all_findings],
        }


class _Collected(list[Finding]):
    """A ``Note`` that keeps the findings, so that the reader continues."""

    def __call__(self, error: BadData) -> None:
        """Keep the findings of an error."""
        self.extend(error.findings)


def inspect_data(
    root: Path,
    reporter: Reporter,
    *,
    split: str | None = None,
    reading: Reading | None = None,
    saliency: Path | None = None,
    masks: bool = True,
    section: Optimisation | None = None,
) -> Inspection:
    """Find all that training or evaluation would refuse, skip or read in an unexpected way.

    Args:
        root: the data folder.
        reporter: gets the progress.
        split: the only one to check; None checks all.
        reading: how the folder is read.
        saliency: a folder of saliency maps, one for each image.
        masks: also the masks of the data folder.
        section: epochs and batch size of the training to come; None takes the defaults of train-cls.

    Raises:
        UsageError: see ``open_data``.
        DataError: there is no data set.
    """
    root, found, reading = Path(root), _Collected(), reading or Reading()
    reader = find_reader(root, reading)
    sets = _open_splits(root, split, reading, found, reporter)
    listed = list({record.name: record for tagged in sets for record in tagged.records}.values())
    photographs = reader.photographs(root, found)
    for tagged in sets:
        found += _odd_classes(tagged, reading)
        found += _missing_masks(tagged) if masks else ()
    if split is None:
        folders = {tagged.mask_folder: "mask" for tagged in sets if masks and tagged.mask_folder is not None}
        for folder, what in (folders | ({saliency: "saliency map"} if saliency is not None else {})).items():
            found += _unused(folder, what, photographs)
    if masks and not any(tagged.mask_folder or tagged.annotations for tagged in sets):
        found += _masks_elsewhere(root, photographs)
    found += _overlaps(sets)
    found += [Finding("split-alike", Place(root), words) for words in odd_splits([tagged.split for tagged in sets])]
    found += _alike_files(photographs)
    others = _unlisted(photographs, listed) if split is None and (reader.lists_all or not listed) else []
    records = Records.of([*listed, *others], root)
    scan = scan_images(records, reporter)
    found += _inspect_images(scan, sets)
    if reader.contradictions is not None:
        found += reader.contradictions(
            root, reading.tags, dict(zip(scan.records.names, scan.sizes(), strict=True)), sets
        )
    scored = {record.name: tagged for tagged in sets if masks for record in tagged.records}
    jobs = [
        LayerJob(record=record, size=size, turn=turn, tagged=scored.get(record.name), saliency=saliency)
        for record, size, turn in zip(
            listed, scan.sizes(), scan.turns(), strict=False
        )  # the images of no split come last
        if record.name in scored or saliency is not None
    ]
    found += inspect_layers(jobs, reporter)
    order = {name: position for position, name in enumerate(KINDS)}
    unique = sorted(dict.fromkeys(found), key=lambda one: (one.severity, order[one.kind]))
    return Inspection(
        root=root,
        splits={tagged.split: len(tagged) for tagged in sets},
        classes=replace(sets[0], records=tuple(listed)).images_by_class() if sets else {},
        classes_by_split={tagged.split: tagged.images_by_class() for tagged in sets},
        images=len(records),
        left_out=photographs.left_out(),
        findings=tuple(unique),
        lessons=tuple(lessons(learnt, section)) if (learnt := _trained_on(sets)) is not None else (),
    )


def _trained_on(sets: Sequence[TaggedSet]) -> TaggedSet | None:
    """The split that a training takes by itself; without one the largest that is not for validation or tests."""
    name = chosen_split([tagged.split for tagged in sets], TRAIN_SPLITS)
    others = [one for one in sets if chosen_split([one.split], (*VAL_SPLITS, "test")) is None]
    return next((one for one in sets if one.split == name), max(others, key=len, default=None))


def _open_splits(
    root: Path, split: str | None, reading: Reading, note: _Collected, reporter: Reporter
) -> list[TaggedSet]:
    """The splits that can be opened; ``note`` collects why the others cannot."""
    sets = []
    try:
        names = list_splits(root, reading, note=note, reporter=reporter)
    except BadData as error:
        note(error)
        return []
    for name in names if split is None else (split,):
        try:
            sets.append(open_data(root, split=name, reading=reading, note=note, reporter=reporter))
        except BadData as error:
            note(error)
    return sets


def _unlisted(photographs: Photographs, listed: Sequence[Record]) -> list[Record]:
    """Images on disk that no split lists."""
    known = {record.name for record in listed}
    return [
        Record(name=name, image=photographs.folder / file, tags=(), part=photographs.parts.get(name))
        for name, file in photographs.files.items()
        if name not in known
    ]


def _odd_classes(tagged: TaggedSet, reading: Reading) -> Iterator[Finding]:
    """Findings for classes that no image of a split has, and for pairs that may be one class."""
    path = conventional(tagged.root, CLASS_FILE)
    place = Place(path if is_file(path) else tagged.root)
    seen = {tag for record in tagged.records for tag in record.tags}
    unused = [repr(name) for index, name in enumerate(tagged.classes) if index not in seen]
    if unused:
        which = "the class" if len(unused) == 1 else f"{len(unused)} of {len(tagged.classes)} classes:"
        yield Finding("class-unused", place, f"no image of split '{tagged.split}' has {which} {first_few(unused, 5)}")
    yield from alike_names(tagged.classes, place)
    yield from odd_names(tagged.classes, place)
    yield from _odd_labels(tagged, reading)


def _alike_files(photographs: Photographs) -> Iterator[Finding]:
    """Findings for images whose outputs would overwrite each other on a disk that takes their names for one."""
    first: dict[str, str] = {}
    for name, file in photographs.files.items():
        other = first.setdefault(by_sight(name).casefold(), name)
        if other != name:
            what = f"{other!r} and {name!r} differ only in case, spaces or Unicode form: disks of Windows and Macs"
            yield Finding("name-alike", Place(photographs.folder / file), f"{what} may take them for one")


def _overlaps(sets: Sequence[TaggedSet]) -> Iterator[Finding]:
    """A finding where the splits that training and validation take by themselves share images."""
    by_name = {tagged.split: tagged for tagged in sets}
    train = chosen_split([*by_name], TRAIN_SPLITS)
    val = chosen_split([name for name in by_name if name != train], VAL_SPLITS)
    if train is not None and val is not None and (both := overlap(by_name[train], by_name[val])):
        yield Finding("split-overlap", Place(by_name[val].root), both)


def _odd_labels(tagged: TaggedSet, reading: Reading) -> Iterator[Finding]:
    """Findings for the class names where they come from labels alone: those of a table, or those that images have."""
    path = reading.tags or find_tag_file(tagged.root)
    if reading.classes or is_file(conventional(tagged.root, CLASS_FILE)):
        return
    if tagged.format == "folder" and path is not None and reading.tags_from in ("auto", "file"):
        yield from odd_labels(read_tag_file(path, encoding=reading.encoding, note=_Collected()))
        return
    labels = (tuple(tagged.classes[tag] for tag in record.tags) for record in tagged.records)
    lines = {
        record.name: TagLine(name=record.name, suffix="", labels=own, split=tagged.split, place=Place(record.image))
        for record, own in zip(tagged.records, labels, strict=True)
    }
    table = TagFile(path=tagged.root / tagged.tags_source, lines=lines)
    yield from (one for one in odd_labels(table) if one.kind != "class-joined" or tagged.format in SEPARATED)


def _missing_masks(tagged: TaggedSet) -> Iterator[Finding]:
    """One finding for all images of a split that cannot be scored, where there is a mask folder."""
    if tagged.mask_folder is None:
        return
    try:
        names = [record.name for record in tagged.records if tagged.mask_path(record) is None]
    except BadData as error:  # the folder may not be read
        yield from error.findings
        return
    if names:
        near = near_file(tagged.mask_folder, f"{names[0]}.png")
        hint = f"; {names[0]}.png{near}" if near else ""
        what = f"{len(names)} of {len(tagged)} images of split '{tagged.split}' have no mask ({first_few(names)}){hint}"
        yield Finding("mask-missing", Place(tagged.mask_folder), what)


def _masks_elsewhere(root: Path, photographs: Photographs) -> Iterator[Finding]:
    """A folder whose PNG files are named as images, and whose own name is one that people give to masks."""
    for name in names_in(root):
        if name.lower() not in MASK_NAMES or not is_folder(root / name):
            continue
        files = [Path(file).stem for file in walk(root / name).files if file.lower().endswith(".png")]
        images = {Path(image).name for image in photographs.files if not image.startswith(f"{name}/")}
        fitting = sum(stem in images for stem in files)
        if fitting:
            what = f"{counted(fitting, 'PNG file')} named as images; masks for scoring are read from masks/ alone"
            yield Finding("mask-elsewhere", Place(root / name), what, f"mv {root / name} {root / 'masks'}")


def _unused(folder: Path, what: str, photographs: Photographs) -> Iterator[Finding]:
    """PNG files of a folder of masks or saliency maps that belong to no image."""
    names = {*photographs.files, *(name.removeprefix("images/") for name in photographs.files)}
    with suppress(BadData):  # a folder that may not be read is found elsewhere
        files = [file[:-4] for file in walk(folder).files if file.lower().endswith(".png")]
        lost = [name for name in files if name not in names]
        if lost:
            near = NearNames(names).ask(lost[0])
            many = (
                f"{len(lost)} of {len(files)} files are" if len(lost) > 1 else f"1 of {counted(len(files), 'file')} is"
            )
            what = f"{many} the {what} of no image ({first_few(lost)}){near}"
            yield Finding("mask-unused", Place(folder), what, "name it as its image, or remove it")


def _inspect_images(scan: Scan, sets: Sequence[TaggedSet]) -> Iterator[Finding]:
    """All that is found in the images, and copies among them."""
    known = {record.name: (tagged, record) for tagged in sets for record in tagged.records}
    first: dict[str, str] = {}
    for index, record in enumerate(scan.records):
        try:
            facts = scan.facts(index)
        except UnreadableImage as error:
            yield from error.findings
            continue
        yield from (one for one in _remarks(record.image, facts) if record.part is None or one.kind != "image-suffix")
        original = first.setdefault(facts.digest, record.name)
        if original != record.name:
            more = _copied(known[original], known[record.name]) if {original, record.name} <= known.keys() else ""
            yield Finding("image-copy", Place(record.image), f"the same bytes as {original}{more}")


def _copied(first: tuple[TaggedSet, Record], second: tuple[TaggedSet, Record]) -> str:
    """What two copies of an image say differently: their tags and their splits."""
    (one, image), (other, copy) = first, second
    tags = [", ".join(one.classes[tag] for tag in record.tags) or "none" for record in (image, copy)]
    labels = f", with other tags ({tags[1]}; there {tags[0]})" if image.tags != copy.tags else ""
    leak = f", in split '{other.split}' and '{one.split}': figures on one of them are too good"
    return labels + (leak if one.split != other.split else "")


def _remarks(path: Path, facts: ImageFacts) -> Iterator[Finding]:
    """Warnings about an image that can be read."""
    place, (height, width) = Place(path), facts.size
    suffix, shape = path.suffix.lower(), f"{width}x{height} (width x height)"
    if suffix and facts.format != LONG_SUFFIX.get(suffix, suffix[1:].upper()):
        yield Finding("image-suffix", place, f"a {facts.format} file; it is read as such")
    if facts.bits > 8:
        yield Finding(
            "image-16-bit", place, f"16 bits a sample, of which {facts.bits} are used; --range says which are read"
        )
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


def write_list(path: Path, findings: Iterable[Finding]) -> None:
    """Write findings as CSV, atomically."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(finding.as_row() for finding in findings)
    write_whole(path, text.getvalue().encode("utf-8", errors="backslashreplace"))
