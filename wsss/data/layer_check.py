"""What `wsss data check` finds in the masks and saliency maps of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsss.data.findings import BadData, Finding, Place
from wsss.data.images import ON_ITS_SIDE, opened, orientation
from wsss.data.mask_order import mask_order
from wsss.data.masks import IGNORE_INDEX, Colour, count_indices, mask_colours, read_mask
from wsss.data.records import Record, TaggedSet, counted
from wsss.data.threads import in_threads
from wsss.data.truth import CLASS_INDICES, MaskFolder, MaskValues
from wsss.data.walking import is_file, spelled
from wsss.reporting import Reporter, first_few


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerJob:
    """An image and what lies over it.

    Attributes:
        record: of the image.
        size: (H, W) of the image, None where it cannot be read.
        turn: its EXIF orientation, 1 (upright) to 8.
        tagged: the set whose mask is examined, or None.
        saliency: the folder whose saliency map is examined, or None.
    """

    record: Record
    size: tuple[int, int] | None
    turn: int
    tagged: TaggedSet | None
    saliency: Path | None


def inspect_layers(jobs: Sequence[LayerJob], reporter: Reporter) -> Iterator[Finding]:
    """All that is found in the masks and saliency maps."""
    if jobs:
        reporter.begin("checking masks", len(jobs))
    seen: dict[str, list[tuple[frozenset[int], frozenset[int]]]] = {}
    palettes, brightest = _Palettes(), 0
    for job, layers in zip(jobs, in_threads(_inspect_job, jobs), strict=True):
        reporter.advance()
        yield from layers.findings
        brightest = max(brightest, layers.brightest)
        if layers.held and job.tagged is not None:
            tags = frozenset(tag + 1 for tag in job.record.tags)
            seen.setdefault(job.tagged.split, []).append((tags, frozenset(layers.held)))
            palettes.add(job, layers.colours)
    yield from palettes.findings()
    if brightest == 1:
        where = next(job.saliency for job in jobs if job.saliency is not None)
        yield Finding("saliency-range", Place(where), "the largest value of all maps is 1; they are read as 0 to 255")
    sets = {job.tagged.split: job.tagged for job in jobs if job.tagged is not None}
    for split, pairs in seen.items():
        yield from mask_order(pairs, sets[split])


@dataclass(slots=True)
class _Palettes:
    """Compares the colours that palette masks give to their indices: programs that give each mask a palette of its own
    number the classes anew in each.
    """

    first: dict[int, tuple[Colour, Path]] = field(default_factory=dict)
    others: list[tuple[int, Path]] = field(default_factory=list)

    def add(self, job: LayerJob, colours: Mapping[int, Colour]) -> None:
        """The colours of the indices that a mask holds."""
        path = None if job.tagged is None else job.tagged.mask_path(job.record)
        if path is None:
            return
        for index, colour in colours.items():
            if self.first.setdefault(index, (colour, path))[0] != colour:
                self.others.append((index, path))

    def findings(self) -> Iterator[Finding]:
        """One for all masks that give another colour to an index than those before them."""
        if not self.others:
            return
        (index, path), count = self.others[0], len({path for _, path in self.others})
        first = self.first[index]
        masks = f"{count} masks give" if count > 1 else "a mask gives"
        what = f"{masks} other colours to indices than {first[1].name} does (index {index} is {_hex(first[0])} there)"
        yield Finding("mask-palette", Place(path), f"{what}; indices are read, not colours")


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


@dataclass(slots=True)
class _Layers:
    """What lies over one image.

    Attributes:
        findings: what is wrong with it.
        held: the indices of its mask; empty where it cannot be read.
        colours: those that a palette gives to these indices.
        brightest: the largest value of its saliency map, 0 to 255.
    """

    findings: list[Finding] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    colours: dict[int, Colour] = field(default_factory=dict)
    brightest: int = 0


def _inspect_job(job: LayerJob) -> _Layers:
    """Look at the mask and the saliency map of an image."""
    found = _Layers()
    try:
        mask = None if job.tagged is None else job.tagged.mask_path(job.record)
        if mask is not None and job.tagged is not None:
            found.findings += _inspect_layer("mask", mask, job.size, job.turn, found, (job.tagged, job.record))
            found.colours = mask_colours(mask, found.held - {IGNORE_INDEX}) if found.held else {}
        elif job.tagged is not None and job.size is not None and job.tagged.has_truth(job.record):
            found.findings += _inspect_drawn(job.tagged, job.record, found.held)
        if job.saliency is not None:
            saliency = spelled(job.saliency, f"{job.record.name}.png")
            found.findings += _inspect_layer("saliency", saliency, job.size, job.turn, found)
    except BadData as error:  # the folder may not be read
        found.findings += error.findings
    return found


def _inspect_layer(
    what: str,
    path: Path,
    size: tuple[int, int] | None,
    turn: int,
    found: _Layers,
    tagged: tuple[TaggedSet, Record] | None = None,
) -> Iterator[Finding]:
    """What is wrong with a mask or saliency map.

    Args:
        what: "mask" or "saliency".
        path: of the PNG.
        size: (H, W) of its image, None where that is unknown.
        turn: the EXIF orientation of its image, 1 to 8.
        found: gets the indices of the mask, or the brightest value of the saliency map.
        tagged: of a mask, its set and record; None: pixel values are not checked.
    """
    if not is_file(path):
        yield Finding(f"{what}-missing", Place(path), "no such file")
        return
    try:
        layer_HW = read_mask(path) if tagged is None else _values(tagged[0]).read(path)
    except BadData as error:
        for finding in error.findings:
            yield Finding(finding.kind.replace("mask", what), finding.place, finding.what, finding.mend)
        return
    yield from _turns(what, path, layer_HW.shape, size, turn)
    height, width = layer_HW.shape
    if size is not None and (height, width) != size:
        shapes = f"{width}x{height}, its image {size[1]}x{size[0]} (width x height)"
        turned = "; images are read upright, as their EXIF asks" if (width, height) == size else ""
        yield Finding(f"{what}-size", Place(path), shapes + turned)
    if tagged is None:
        found.brightest = int(layer_HW.max(initial=0))
    else:
        found.held |= count_indices(layer_HW).keys()
        yield from _inspect_indices(path, found.held, *tagged)


def _inspect_drawn(tagged: TaggedSet, record: Record, held: set[int]) -> Iterator[Finding]:
    """What is wrong with a mask that is no file of its own but drawn from annotations, or read from a shard."""
    try:
        label_HW = tagged.truth(record)
    except BadData as error:
        yield from error.findings
        return
    if label_HW is not None:
        held |= count_indices(label_HW).keys()
        yield from _inspect_indices(record.image, held, tagged, record)


def _values(tagged: TaggedSet) -> MaskValues:
    """What the values of the mask files of a set mean."""
    return tagged.annotations.values if isinstance(tagged.annotations, MaskFolder) else CLASS_INDICES


def _inspect_indices(path: Path, found: set[int], tagged: TaggedSet, record: Record) -> Iterator[Finding]:
    """What is wrong with the class indices that a mask holds, and what its image's tags say otherwise."""
    count = len(tagged.classes)
    unknown = sorted(found - {*range(count + 1), IGNORE_INDEX})
    if unknown:
        named = first_few([str(index) for index in unknown], 5)
        yield Finding("mask-class", Place(path), f"class index {named}; there are {counted(count, 'class', 'classes')}")
    tags = {tag + 1 for tag in record.tags}
    if tags and IGNORE_INDEX in found and not found - {0, IGNORE_INDEX}:
        what = (
            f"it holds only 0 and {IGNORE_INDEX}, and {IGNORE_INDEX} is ignored; objects need the index of their class"
        )
        yield Finding("mask-binary", Place(path), what, "write the class index where the mask holds 255")
        return
    differ = [
        f"it holds no pixel of its image's tags {_names(tags - found, tagged)}" if tags - found else "",
        f"it holds {_names(more, tagged)}, which its image's tags do not"
        if (more := found & _known(count) - tags)
        else "",
    ]
    if any(differ):
        yield Finding("mask-tags", Place(path), "; ".join(filter(None, differ)))


def _known(count: int) -> set[int]:
    return set(range(1, count + 1))


def _names(indices: set[int], tagged: TaggedSet) -> str:
    return first_few([repr(tagged.classes[index - 1]) for index in sorted(indices)], 5)


def _turns(what: str, path: Path, shape: tuple[int, ...], size: tuple[int, int] | None, turn: int) -> Iterator[Finding]:
    """Warnings where the size of a mask or saliency map cannot show which way it was drawn.

    Tools that pass over EXIF draw on the stored pixels. A quarter turn (orientations 5 to 8) exchanges height and
    width, so that a map of the size of the upright image was drawn upright, unless the image is square.
    """
    with opened(path, path) as image:
        own = orientation(image)
    if own != 1:
        yield Finding(f"{what}-turned", Place(path), f"its own EXIF orientation {own} is not applied")
    hidden = turn not in ON_ITS_SIDE or shape[0] == shape[1]
    if turn != 1 and hidden and shape == size:
        how = f"its image has the EXIF orientation {turn} and is turned upright"
        yield Finding(f"{what}-turned", Place(path), f"{how}; nothing shows whether this was drawn upright: look at it")
