"""Write tar shards in webdataset's layout: ``SPLIT-000000.tar`` with image, ``json`` and, where asked, ``mask.png``."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from wsss.data.masks import encode_mask
from wsss.data.readers.webdataset import OURS, splits_of
from wsss.data.writers.writer import Export, Picture, Writer
from wsss.errors import UsageError
from wsss.files import whole, write_whole

SUMS = "SHA256SUMS"
"""File with a line "HASH  NAME" of each other file, as the program sha256sum writes and reads it."""


def write_webdataset(out: Path, export: Export) -> None:
    """Fill a folder with shards of at most ``export.shard_bytes``, or one sample.

    A key ends at the first dot of a file name. Where the name of an image has a dot, the key has "_" instead, and the
    ``json`` holds the name.

    Raises:
        DataError: an image or a label map cannot be read.
        UsageError: an image is no longer there.
    """
    gone = [picture.name for picture in export.pictures if picture.image is None]
    if gone:
        raise UsageError("the images of these label maps are no longer where they were", "--to coco  # needs none")
    keys = _keys([picture.name for picture in export.pictures])
    shards = []
    for split in export.splits():
        number, used = 0, 0
        waiting: list[tuple[str, bytes]] = []
        for picture in export.each(one for one in export.pictures if one.split == split):
            sample = list(_fields(picture, keys[picture.name], export))
            size = sum(2 * tarfile.BLOCKSIZE + len(content) for _, content in sample)
            if waiting and used + size > export.shard_bytes:
                shards.append(_write_shard(out, split, number, waiting))
                number, used, waiting = number + 1, 0, []
            used += size
            waiting += sample
        shards.append(_write_shard(out, split, number, waiting))
    write_whole(out / "classes.txt", "".join(f"{name}\n" for name in export.classes))
    sums = "".join(f"{_sha256(out / name)}  {name}\n" for name in ("classes.txt", *shards))
    write_whole(out / SUMS, sums)
    read_as = splits_of(shards)
    if any(f"{read_as[shard]}-" != shard[: len(read_as[shard]) + 1] for shard in shards):
        raise UsageError(f"names of shards cannot tell the splits {', '.join(export.splits())}", "rename the splits")


def _keys(names: Sequence[str]) -> dict[str, str]:
    """The key of each name: without a dot in its last part, and none twice."""
    keys, taken = {}, set[str]()
    for name in names:
        folder, slash, last = name.rpartition("/")
        key = plain = f"{folder}{slash}{last.replace('.', '_')}"
        number = 1
        while key in taken:
            number += 1
            key = f"{plain}-{number}"
        keys[name] = key
        taken.add(key)
    return keys


def _fields(picture: Picture, key: str, export: Export) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members of one sample."""
    yield f"{key}{picture.suffix().lower()}", picture.read()
    facts: dict[str, object] = {"labels": picture.tags}
    if picture.unknown:
        facts["unknown"] = picture.unknown
    if key != picture.name:
        facts[OURS] = picture.name
    yield f"{key}.json", json.dumps(facts, ensure_ascii=False).encode()
    if export.masks and picture.label is not None:
        yield f"{key}.mask.png", encode_mask(picture.label())


def _write_shard(out: Path, split: str, number: int, members: Sequence[tuple[str, bytes]]) -> str:
    """Write one shard; returns its name. The same members give the same bytes."""
    name = f"{split}-{number:06}.tar"
    with whole(out / name) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in members:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


WEBDATASET = Writer(
    name="webdataset",
    writes="tar shards SPLIT-000000.tar of images, tags as json and, with --masks, mask.png; classes.txt, SHA256SUMS",
    write=write_webdataset,
    needs_masks=False,
    unknown=True,
)
