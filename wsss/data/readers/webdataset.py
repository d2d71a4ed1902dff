"""Tar shards in webdataset's layout: images with ``json``, ``cls`` or ``txt`` beside them, read without extraction."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.config import Reading
from wsss.data.findings import BadData, Note, Place, refuse
from wsss.data.images import IMAGE_SUFFIXES
from wsss.data.parts import Part
from wsss.data.photographs import Photographs
from wsss.data.readers.annotated import AnnotatedImage, AnnotatedSource
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.label_fields import is_nothing
from wsss.data.readers.listing import Listing
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.table_columns import NAMES
from wsss.data.records import Record
from wsss.data.shards import MASKS, TEXTS, Member, open_shards
from wsss.data.truth import MaskValues
from wsss.data.walking import is_file, is_folder, names_in
from wsss.errors import DataError, UsageError
from wsss.reporting import first_few

ENDINGS = (".tar", ".tar.gz", ".tgz")
NUMBER = re.compile(r"^(?P<prefix>.*?)[-_.]?\d+$")
"""Names of shards: what stands before the number is the split."""
SPLIT = re.compile(
    r"(?:^|.*[-_.])(?P<split>train(?:[-_]?aug|ing)?|valid(?:ation)?|val|dev|test(?:ing)?|all)$", re.IGNORECASE
)
OURS = "wsss_name"
"""Key of the JSON that ``wsss data pack`` writes where the name of an image has a dot, which a key cannot have."""


@dataclass(frozen=True, slots=True)
class ShardMasks:
    """A ``Truth``: masks that are members of shards, by the names of their images."""

    parts: Mapping[str, Part]
    values: MaskValues

    def has(self, record: Record) -> bool:
        """Whether there is a mask."""
        return record.name in self.parts

    def read(self, record: Record) -> NDArray[np.uint8] | None:
        """The class indices of the mask."""
        part = self.parts.get(record.name)
        return None if part is None else self.values.read(Path(f"{part.file}:{record.name}"), part)


def _shards(root: Path) -> list[str]:
    """Paths of the shards in a folder or, where it has none, in the folders directly below it; sorted."""
    own = names_in(root)
    found = [name for name in own if _is_shard(root, name)]
    if not found:
        inside = (f"{folder}/{name}" for folder in own for name in _names_below(root / folder))
        found = [path for path in inside if _is_shard(root, path)]
    return sorted(found)


def _names_below(folder: Path) -> tuple[str, ...]:
    """Names in a folder; none where it cannot be listed, which others say."""
    try:
        return names_in(folder) if is_folder(folder) else ()
    except DataError:
        return ()


def _is_shard(root: Path, path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.lower().endswith(ENDINGS) and not name.startswith(".") and is_file(root / path)


def splits_of(shards: Sequence[str]) -> dict[str, str]:
    """The split of each shard: its folder, or what stands before its number.

    Of ``pets-train-0.tar`` and ``pets-val-0.tar`` these are train and val: a beginning that all have is left out where
    usual names of splits remain.
    """
    prefixes = {}
    for path in shards:
        folder, _, name = path.rpartition("/")
        stem = name[: name.lower().rindex(".t")]
        match = NUMBER.match(stem)
        prefixes[path] = folder.rpartition("/")[2] or (match["prefix"] if match and match["prefix"] else stem)
    usual = {prefix: SPLIT.match(prefix) for prefix in {*prefixes.values()}}
    heads = {prefix[: match.start("split")] for prefix, match in usual.items() if match}
    if len(heads) == 1 and all(usual.values()):
        return {path: prefix[len(next(iter(heads))) :] for path, prefix in prefixes.items()}
    return prefixes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    """Images with the fields of their key; the first image counts."""

    shard: str
    images: tuple[Member, ...]
    fields: Mapping[str, Member]

    @property
    def image(self) -> Member:
        """The image that is read."""
        return self.images[0]


def _samples(shard: Path, name: str, members: Sequence[Member], note: Note) -> Iterator[_Sample]:
    """The samples of a shard that have an image."""
    groups: list[tuple[str, list[Member]]] = []
    for member in members:
        if not groups or groups[-1][0] != member.key:
            groups.append((member.key, []))
        groups[-1][1].append(member)
    for key, group in groups:
        fields = {member.field: member for member in group}
        if len(fields) < len(group):
            what = f"sample '{key}' has a field twice ({', '.join(member.field for member in group)})"
            note(BadData.at("name-twice", shard, what, f"tar tf {shard}"))
        images = [one for one in group if is_image_field(one.field)]
        if images:
            yield _Sample(shard=name, images=tuple(images), fields=fields)


def is_image_field(field: str) -> bool:
    """Whether a field is an image, and no mask by its name."""
    return f".{field.rpartition('.')[2]}" in IMAGE_SUFFIXES and field not in MASKS


def _sniff(root: Path, reading: Reading) -> str | None:
    shards = _shards(root)
    return f"{len(shards)} tar shard{'s' if len(shards) > 1 else ''}, such as {shards[0]}" if shards else None


def _name(sample: _Sample, content: Any) -> str:
    """The name of an image: its key, or what ``wsss data pack`` says."""
    own = content.get(OURS) if isinstance(content, dict) else None
    inside = isinstance(own, str) and own and not own.startswith("/") and ".." not in own.split("/")
    return own if isinstance(own, str) and inside else sample.image.key


def _content(sample: _Sample, place: Place) -> Any:
    member = sample.fields.get("json")
    if member is None:
        return None
    try:
        return json.loads(member.text)
    except (ValueError, RecursionError) as error:
        what = (
            f"sample '{member.key}': its json is none ({error})"
            if member.text
            else f"sample '{member.key}': its json is empty or long"
        )
        raise BadData.at("annotation-unreadable", place, what, f"tar xOf {place.path} {member.key}.json") from error


def _read(root: Path, note: Note) -> tuple[Photographs, dict[str, tuple[_Sample, Any]]]:
    """The images by name, and the sample of each with the value of its JSON."""
    shards = _shards(root)
    files: dict[str, str] = {}
    parts: dict[str, Part] = {}
    samples: dict[str, tuple[_Sample, Any]] = {}
    for shard, members in open_shards(root, shards, note).items():
        for sample in _samples(root / shard, shard, members, note):
            place = Place(root / shard)
            try:
                content = _content(sample, place)
            except BadData as error:
                note(error)
                continue
            name = _name(sample, content)
            if name in files:
                what = f"sample '{sample.image.key}' has the name of another one, in {samples[name][0].shard}"
                note(BadData.at("name-twice", place, what, "give each sample a key of its own"))
                continue
            files[name] = f"{shard}:{sample.image.key}"
            parts[name] = sample.image.part(root / shard)
            samples[name] = sample, content
    return Photographs(folder=root, files=files, parts=parts), samples


def _photographs(root: Path, note: Note = refuse) -> Photographs:
    return _read(root, note)[0]


def _open(root: Path, options: Options) -> ShardSource:
    reading = options.reading
    if reading.tags is not None or reading.tags_from in ("xml", "masks", "shapes"):
        raise UsageError(f"{root}: shards bring their tags", "leave out --tags and --tags-from")
    return ShardSource(root, *_read(root, options.note), options)


@dataclass(frozen=True, slots=True)
class ShardSource:
    """A folder of shards."""

    root: Path
    photographs: Photographs
    samples: Mapping[str, tuple[_Sample, Any]]
    options: Options

    def splits(self) -> tuple[str, ...]:
        """The splits, in the order of the shards."""
        return tuple(dict.fromkeys(self._splits().values()))

    def listing(self, split: str) -> Listing:
        """One split.

        Raises:
            DataError: tags cannot be read, or are numbers and the classes are not told.
        """
        options, splits = self.options, self._splits()
        key = _json_key(self.root, options.reading, [content for _, content in self.samples.values()])
        images, masks = [], dict[str, Part]()
        others: dict[str, None] = {}
        for name, (sample, content) in self.samples.items():
            if splits[sample.shard] != split:
                continue
            place = Place(self.root / sample.shard)
            try:
                labels, unknown = _labels(sample, content, key, options, place)
            except BadData as error:
                options.note(error)
                continue
            others.update((one.field, None) for one in sample.images[1:])
            for field in MASKS:
                if field in sample.fields and sample.fields[field].text:
                    masks.setdefault(name, sample.fields[field].part(self.root / sample.shard))
            written = self.photographs.files[name]
            images.append(
                AnnotatedImage(written=written, split=split, labels=labels, unknown=unknown, place=place, found=name)
            )
        if others:
            what = f"samples have several images; the first one is read, not {first_few([*others])}"
            options.note(BadData.at("file-ignored", self.root, what, "pack one image a sample"))
        values = MaskValues(options.reading.mask_offset, options.reading.mask_ignore)
        return AnnotatedSource(
            options=options,
            photographs=self.photographs,
            images=images,
            declared=None,
            source=self.root,
            finder=ImageFinder(Photographs(folder=self.root, files={})),
            truth=ShardMasks(masks, values) if masks else None,
        ).listing(split)

    def _splits(self) -> dict[str, str]:
        return splits_of([*{sample.shard: None for sample, _ in self.samples.values()}])


def _json_key(root: Path, reading: Reading, contents: Sequence[Any]) -> str | None:
    """The key of the samples' JSON that holds the tags; None where there is none."""
    keys = dict.fromkeys(key for content in contents if isinstance(content, dict) for key in content)
    if reading.tag_field is not None:
        if reading.tag_field in keys:
            return reading.tag_field
        if reading.tag_field in TEXTS:
            return None
        what = f"no key or field '{reading.tag_field}'; the keys are {first_few([*keys], 20) or 'none'}"
        raise BadData.at("tag-field", root, what, "--tag-field cls  # or json, txt, or a key")
    usual = [key for key in keys if key.casefold() in NAMES["labels"].split()]
    if len(usual) > 1:
        raise BadData.at(
            "tag-field", root, f"several keys may hold the tags: {first_few(usual)}", f"--tag-field {usual[0]}"
        )
    return usual[0] if usual else None


def _labels(
    sample: _Sample, content: Any, key: str | None, options: Options, place: Place
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The labels of a sample, None where it has none, and those of unknown classes."""
    told = options.reading.tag_field
    own = f"sample '{sample.image.key}'"
    number = partial(_word, options=options, place=place, own=own)
    if isinstance(content, dict) and key in content:
        value, unknown = content[key], content.get("unknown", []) if OURS in content or key == "labels" else []
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in values):
            raise BadData.at("label-notation", place, f"{own}: '{key}' is no label and no list of them", "write a list")
        opened = unknown if isinstance(unknown, list) else []
        return tuple(number(one) for one in values), tuple(one for one in opened if isinstance(one, str))
    if "cls" in sample.fields and told in (None, "cls"):
        text = sample.fields["cls"].text.strip()
        return (number(int(text) if text.isascii() and text.isdecimal() else text),), ()
    if "txt" in sample.fields and told in (None, "txt"):
        lines = re.split(r"[;|,\n]", sample.fields["txt"].text)
        return tuple(one.strip() for one in lines if one.strip() and not is_nothing(one)), ()
    if content is None or told not in (None, "json"):
        return None, ()
    values = content if isinstance(content, list) else [content]
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in values):
        return None, ()
    return tuple(number(one) for one in values), ()


def _word(value: str | int, options: Options, place: Place, own: str) -> str:
    """A label as a word; a number counts the classes from 0.

    Raises:
        BadData: the classes are not told, or are fewer.
    """
    if isinstance(value, str):
        return value
    classes = options.classes or ()
    if not 0 <= value < len(classes):
        what = f"{own}: class {value}, and {len(classes) or 'no'} classes are told"
        raise BadData.at("tag-digits", place, what, "--classes A,B,C  # the names of 0, 1, 2, ...; or classes.txt")
    return classes[value]


WEBDATASET = Reader(
    name="webdataset",
    looks_for="tar shards",
    sniff=_sniff,
    open=_open,
    photographs=_photographs,
    lists_all=False,
)
