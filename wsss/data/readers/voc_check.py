"""What two sources of a folder in the format of PASCAL VOC say differently; a command reads one of them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from wsss.data.findings import BadData, Finding, Place
from wsss.data.images import split_suffix
from wsss.data.near_names import by_sight, tidy
from wsss.data.readers.annotations import Annotation, read_annotation
from wsss.data.readers.tag_table import ONLY_SPLIT, TagFile, find_tag_file, read_tag_file
from wsss.data.records import TaggedSet, counted
from wsss.data.walking import conventional, spelled
from wsss.reporting import first_few


def contradictions(
    root: Path, tags: Path | None, sizes: Mapping[str, tuple[int, int] | None], sets: Sequence[TaggedSet]
) -> Iterator[Finding]:
    """Annotations that fit neither their image nor the table of tags; a split column that the lists contradict."""
    listed = {record.name for tagged in sets for record in tagged.records}
    folder = conventional(root, "Annotations")
    annotations = {name: found for name in sorted(listed) if (found := _annotation(folder, name)) is not None}
    for name, annotation in annotations.items():
        yield from _of_its_image(folder / f"{name}.xml", name, annotation, sizes.get(name))
    table = _table(tags or find_tag_file(root))
    if table is not None:
        yield from _labels_differ(table, annotations, folder)
        yield from _splits_differ(table, sets)


def _annotation(folder: Path, name: str) -> Annotation | None:
    """The annotation of an image; None where there is none that can be read."""
    try:
        return read_annotation(spelled(folder, f"{name}.xml"))
    except BadData:  # reported where tags come from it
        return None


def _of_its_image(path: Path, name: str, annotation: Annotation, size: tuple[int, int] | None) -> Iterator[Finding]:
    """Findings where an annotation states another file name or size than its image has."""
    stated = split_suffix(PurePosixPath(annotation.file.replace("\\", "/")).name)[0]
    if stated and by_sight(stated) != by_sight(name.rsplit("/", 1)[-1]):
        yield Finding("annotation-name", Place(path), f"it says that it belongs to {annotation.file!r}")
    if size is not None and annotation.size not in (None, size):
        height, width = annotation.size or (0, 0)
        turned = "; images are read upright, as their EXIF asks" if (width, height) == size else ""
        what = f"it says {width}x{height}, its image is {size[1]}x{size[0]} (width x height){turned}"
        yield Finding("annotation-size", Place(path), what)


def _table(path: Path | None) -> TagFile | None:
    """The table of tags; None where there is none that can be read."""
    try:
        return None if path is None else read_tag_file(path, prefix="JPEGImages", note=lambda error: None)
    except BadData:  # reported where tags come from it
        return None


def _labels_differ(table: TagFile, annotations: Mapping[str, Annotation], folder: Path) -> Iterator[Finding]:
    """Findings for images to which the table and an annotation give other labels."""
    for name, annotation in annotations.items():
        line = table.lines.get(name)
        stated = {tidy(label) for label in annotation.labels}
        if line is not None and set(line.labels) != stated:
            own, other = (first_few(sorted(labels), 5) or "none" for labels in (line.labels, stated))
            what = f"{table.path.name} has the labels {own}, {folder.name}/{name}.xml has {other}"
            yield Finding("tags-differ", line.place, what)


def _splits_differ(table: TagFile, sets: Sequence[TaggedSet]) -> Iterator[Finding]:
    """One finding for each list of images that the split column of a table puts elsewhere; the lists count."""
    if table.splits() == (ONLY_SPLIT,):
        return
    for tagged in sets:
        lines = [line for name in tagged.columns.names if (line := table.lines.get(name)) is not None]
        elsewhere = [line for line in lines if line.split != tagged.split]
        if elsewhere:
            count = counted(len(elsewhere), "image")
            what = f"it puts {count} of split '{tagged.split}' in other splits ({elsewhere[0].name} in"
            what += f" '{elsewhere[0].split}'); the lists of ImageSets count"
            yield Finding("split-differs", elsewhere[0].place, what)
