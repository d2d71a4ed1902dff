"""CVAT's "Segmentation mask 1.1": the tree of PASCAL VOC, with labelmap.txt and masks in its colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from wsss.config import Reading
from wsss.data.colour_masks import Colour, ColourMasks, read_entries
from wsss.data.findings import BadData, Note, Place, refuse
from wsss.data.masks import IGNORE_INDEX
from wsss.data.near_names import tidy
from wsss.data.photographs import Photographs, find_images
from wsss.data.readers.annotated import AnnotatedImage, AnnotatedSource
from wsss.data.readers.class_rules import BACKGROUND, ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.listing import Listing
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.text import read_text
from wsss.data.walking import conventional, is_file, is_folder, spelled

LABEL_MAP, MASKS, IMAGES = "labelmap.txt", "SegmentationClass", "JPEGImages"
NO_PHOTOS = (MASKS, "SegmentationObject")


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Images with a mask file each; tags come from the masks, and only where that is asked for."""

    annotated: AnnotatedSource
    files: dict[str, Path]
    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None
    table: Path

    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return self.annotated.splits()

    def listing(self, split: str) -> Listing:
        """One split, with its masks."""
        listing = self.annotated.listing(split)
        rules = ClassRules(self.annotated.options, self.annotated.declared, (), self.table)
        unknown = len(listing.classes) + 1  # refused where a mask is scored
        indices = tuple(rules.index(name) if name else min(unknown, IGNORE_INDEX) for name in self.names)
        files = {one.name: self.files[one.name] for one in listing.images if one.name in self.files}
        truth = ColourMasks(files, indices, self.colours, self.table)
        return Listing(
            split=listing.split,
            images=listing.images,
            classes=listing.classes,
            source=listing.source,
            mask_folder=None,
            annotations=truth if files else None,
        )


def mask_labels(path: Path, names: tuple[str, ...], colours: tuple[Colour, ...] | None, table: Path) -> tuple[str, ...]:
    """Names of the entries that a mask file holds; a file that has not changed is opened once for all splits.

    Raises:
        DataError: a pixel names no entry.
    """
    facts = path.stat()
    return _mask_labels(path, (facts.st_mtime_ns, facts.st_size), names, colours, table)


@lru_cache(maxsize=2**18)
def _mask_labels(
    path: Path, state: tuple[int, int], names: tuple[str, ...], colours: tuple[Colour, ...] | None, table: Path
) -> tuple[str, ...]:
    found = np.flatnonzero(np.bincount(read_entries(path, colours, table).reshape(-1))).tolist()
    if found and found[-1] >= len(names):
        what = f"value {found[-1]}, but {table.name} declares {len(names)} values from 0"
        raise BadData.at("mask-class", path, what, f"add the missing lines to {table}")
    undeclared = [entry for entry in found if not names[entry]]
    if undeclared:
        what = f"value {undeclared[0]}, which {table.name} does not declare"
        raise BadData.at("mask-class", path, what, f"add a line for this value to {table}")
    return tuple(names[entry] for entry in found)


def tags_must_be_told(table: Path) -> BadData:
    """The error for a data set that has masks and no tags, without ``--tags-from masks``."""
    what = "this format holds masks and no tags"
    fix = "--tags-from masks  # takes the tags from the masks: for benchmarks"
    return BadData.at("image-untagged", table, what, fix)


def _sniff(root: Path, reading: Reading) -> str | None:
    found = is_file(conventional(root, LABEL_MAP)) and is_folder(conventional(root, MASKS))
    return f"{LABEL_MAP} with {MASKS}" if found else None


def _photographs(root: Path, note: Note = refuse) -> Photographs:
    return find_images(root, [conventional(root, name).name for name in NO_PHOTOS], note=note)


def read_label_map(path: Path, encoding: str = "utf-8") -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names and colours of ``name:r,g,b:parts:actions`` lines; lines of ``#`` are comments.

    Raises:
        DataError: a line is none, or two lines have one colour.
    """
    names: list[str] = []
    colours: list[Colour] = []
    for number, line in enumerate(read_text(path, encoding).split("\n"), start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        fields = text.rsplit(":", 3) if text.count(":") >= 3 else [*text.rsplit(":", 1), "", ""]
        colour = fields[1].split(",") if len(fields) == 4 else []
        if len(colour) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in colour):
            what, fix = f"'{line[:60]}' is no label", "write NAME:RED,GREEN,BLUE:: with numbers 0..255"
            raise BadData.at("table-format", Place(path, number), what, fix)
        red, green, blue = (int(part) for part in colour)
        if (red, green, blue) in colours:
            what = f"the colour {red},{green},{blue} is that of '{names[colours.index((red, green, blue))]}' too"
            raise BadData.at("table-format", Place(path, number), what, "give each label its own colour")
        names.append(tidy(fields[0]))
        colours.append((red, green, blue))
    if not any(name.casefold() in BACKGROUND for name in names) and (0, 0, 0) not in colours:
        names.append("background")
        colours.append((0, 0, 0))
    return tuple(names), tuple(colours)


def _open(root: Path, options: Options) -> MaskSource:
    table = conventional(root, LABEL_MAP)
    names, colours = read_label_map(table, options.reading.encoding)
    photographs = _photographs(root, options.note)
    if not photographs.files:
        what, fix = "no photographs beside the masks", "export again with 'Save images', or put them into JPEGImages"
        raise BadData.at("image-missing", root, what, fix)
    if options.need_tags and options.reading.tags_from != "masks":
        raise tags_must_be_told(table)
    finder, folder = ImageFinder(photographs), conventional(root, MASKS)
    images, files = [], dict[str, Path]()
    lists = conventional(conventional(root, "ImageSets"), "Segmentation")
    texts = sorted(lists.glob("*.txt")) if is_folder(lists) else []
    if not texts:
        raise BadData.at("split-missing", lists, "no split list", f"write one image name a line to {lists}/default.txt")
    for text in texts:
        for number, line in enumerate(read_text(text, options.reading.encoding).split("\n"), start=1):
            if written := line.strip():
                mask, place, labels = spelled(folder, f"{written}.png"), Place(text, number), None
                if ".." not in written and is_file(mask):
                    name = finder.find(written, place, split=text.stem)
                    files.update({} if name is None else {name: mask})
                    wanted = options.reading.tags_from == "masks"
                    labels = mask_labels(mask, names, colours, table) if wanted else ()
                images.append(AnnotatedImage(written=written, split=text.stem, labels=labels, place=place))
    declared = tuple(name for name in names if name.casefold() not in BACKGROUND)
    source = AnnotatedSource(
        options=options, photographs=photographs, images=images, declared=declared, source=table, finder=finder
    )
    return MaskSource(source, files, names, colours, table)


CVAT_MASKS = Reader(
    name="cvat-masks",
    looks_for=f"{LABEL_MAP} with {MASKS}",
    sniff=_sniff,
    open=_open,
    photographs=_photographs,
    lists_all=False,
    wins_over=("voc", "folder"),
)
