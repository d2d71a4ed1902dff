"""Tar shards in webdataset's layout: where each member lies. A shard is read once; members are then read by offset.

The key of a member is its path up to the first dot of its file name, the rest in lower case is its field: the member
``a/001.v2.jpg`` is the field ``v2.jpg`` of the sample ``a/001``. Members of one sample are neighbours.

What was found is kept beside the image index in the user's cache folder, while length and times of a shard stay.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from wsss.data.entries import file_stamp
from wsss.data.findings import BadData, Note
from wsss.data.index_file import index_path
from wsss.data.parts import Part
from wsss.errors import MachineError
from wsss.files import write_whole

TEXTS = ("json", "cls", "txt")
"""Fields that may hold tags."""
MASKS = ("mask.png", "seg.png")
"""Fields that may hold masks, for scoring."""
MOST_OF_A_TEXT = 2**16
"""Bytes of a field that may hold tags, at most."""
VERSION = 1


class Member(NamedTuple):
    """One member of a shard.

    Attributes:
        key: of its sample.
        field: in lower case.
        start: of its first byte in the shard.
        length: in bytes.
        text: of a field that may hold tags, its content; of one that may hold a mask, "mask" if it has one value a
            pixel; else empty.
    """

    key: str
    field: str
    start: int
    length: int
    text: str

    def part(self, shard: Path) -> Part:
        """Where it lies."""
        return Part(shard, self.start, self.length)


def open_shards(root: Path, shards: Sequence[str], note: Note) -> dict[str, list[Member]]:
    """The members of the shards of a folder, in their order.

    Args:
        root: the folder.
        shards: their paths below it.
        note: called with each fault; if it returns, what is at fault is left out.

    Raises:
        DataError: a shard cannot be read or is cut short, or a member is no plain file inside of it.
    """
    try:
        cache = index_path(root / ".shards")
        kept = _kept(cache)
    except MachineError:  # no cache folder: all are read again next time
        cache, kept = None, {}
    found, stamps = {}, {}
    for name in shards:
        stamp = [*file_stamp(root / name)]
        before = kept.get(name)
        if before is not None and before[0] == stamp:
            members = [Member(*values) for values in before[1]]
        else:
            faults: list[BadData] = []
            members = list(read_members(root / name, faults.append))
            for error in faults:
                note(error)
            if faults:  # they are to be said each time
                found[name] = members
                continue
        found[name], stamps[name] = members, stamp
    if cache is not None and (stamps.keys() != kept.keys() or any(kept[name][0] != stamps[name] for name in stamps)):
        content = {"version": VERSION, "shards": {name: (stamps[name], found[name]) for name in stamps}}
        with suppress(MachineError, OSError):
            write_whole(cache, json.dumps(content))
    return found


def _kept(cache: Path) -> dict[str, Any]:
    try:
        content = json.loads(cache.read_bytes())
        return dict(content["shards"]) if content["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_members(shard: Path, note: Note) -> Iterator[Member]:
    """The members of a shard; folders have none.

    Raises:
        DataError: see ``open_shards``.
    """
    fix = f"tar tf {shard}"
    try:
        length = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                if entry.isdir():
                    continue
                path = posixpath.normpath(entry.name)
                if not entry.isreg() or entry.issparse():
                    what = "is a link, a device or no plain file"
                elif path.startswith(("/", "../")) or path in ("..", "."):
                    what = "lies outside of the shard"
                elif entry.offset_data + entry.size > length:
                    what = "is cut short: the shard ends before it"
                else:
                    yield _member(tar, entry, path)
                    continue
                note(
                    BadData.at("shard-member", shard, f"member {entry.name[:200]!r} {what}", "pack it again without it")
                )
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or tar.offset >= length:
                what = "cut short: it ends without the mark of an archive's end"
                note(BadData.at("shard-broken", shard, what, f"{fix}  # or copy it again"))
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        packed = shard.suffix != ".tar"
        what = "compressed: its members cannot be read one by one" if packed else f"no tar archive ({error})"
        note(BadData.at("shard-broken", shard, what, f"gunzip {shard}" if packed else fix))
    except OSError as error:
        note(BadData.at("shard-broken", shard, f"cannot be read ({error.strerror})", fix))


def _member(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> Member:
    folder, name = posixpath.split(path)
    stem, _, field = name.partition(".")
    field = field.lower()
    text = ""
    if field in TEXTS or field in MASKS:
        file = tar.extractfile(entry)
        assert file is not None  # a plain file
        content = file.read(MOST_OF_A_TEXT + 1)
        if field in MASKS:
            text = "mask" if _is_one_value_a_pixel(content) else ""
        elif len(content) <= MOST_OF_A_TEXT:
            text = content.decode("utf-8-sig", "replace")
    return Member(posixpath.join(folder, stem), field, entry.offset_data, entry.size, text)


def _is_one_value_a_pixel(content: bytes) -> bool:
    """Whether the header of a PNG says palette or grey, 8 bits."""
    return content[:8] == b"\x89PNG\r\n\x1a\n" and content[24:26] in (b"\x08\x00", b"\x08\x03")
