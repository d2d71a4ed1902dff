"""Find the image that an annotation file means: names are paths of other machines, or addresses, or lack an ending."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import parse_qs, unquote, urlsplit

from wsss.data.findings import BadData, Place
from wsss.data.images import split_suffix
from wsss.data.near_names import by_sight
from wsss.data.photographs import Photographs

PLACES = ("", "images", "images/{split}", "{split}", "{split}/images", "JPEGImages", "data")
"""Where images lie, below the folder of the annotation file and below the data folder."""
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the names of uploaded files."""


class ImageFinder:
    """The images of a data folder by the names that annotation files give them.

    Args:
        photographs: of the whole data folder.
        uploads: also seek names without the eight letters that Label Studio puts before them.
    """

    def __init__(self, photographs: Photographs, *, uploads: bool = False) -> None:
        self._uploads = uploads
        self._files: dict[str, str] = {}
        self._names: dict[str, list[str]] = {}
        for name, file in photographs.files.items():
            self._files[_key(file)] = name
            self._names.setdefault(by_sight(name), []).append(name)

    def find(self, written: str, place: Place, *, split: str = "", base: str = "") -> str | None:
        """The name of the image that is meant; None where there is none.

        Args:
            written: as the file names it: a path of any machine, an address, with or without an ending.
            place: where it is written.
            split: the split that the file belongs to.
            base: folder of the annotation file, below the data folder; "" or ending in "/".

        Raises:
            DataError: two images fit as well, or the name leads out of the data folder.
        """
        folders = _folders(base, split)
        for form in self._forms(written, place):
            hits = dict.fromkeys(hit for folder in folders for hit in self._at(f"{folder}{form}"))
            if len(hits) > 1:
                what = f"'{written}' may be {' or '.join(hits)}"
                raise BadData.at("image-ambiguous", place, what, "write the path below the data folder")
            if hits:
                return next(iter(hits))
        return None

    def _at(self, path: str) -> Sequence[str]:
        """Names of the images at a path, which may lack its ending."""
        exact = self._files.get(_key(path))
        if exact is not None:
            return (exact,)
        return self._names.get(by_sight(path), ()) if not split_suffix(path)[1] else ()

    def _forms(self, written: str, place: Place) -> Iterator[str]:
        """What may be meant, the most literal first: whole, then with fewer folders before it."""
        for path in dict.fromkeys(_paths(written)):
            parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
            inside = list(_inside(parts))
            for first in range(len(inside)):
                whole = "/".join(inside[first:])
                yield whole
                if self._uploads:
                    head, _, last = whole.rpartition("/")
                    short = UPLOAD.sub("", last)
                    if short != last:
                        yield f"{head}/{short}" if head else short


def _paths(written: str) -> Iterator[str]:
    """The written name as a path: as it stands, then as an address."""
    yield written
    address = urlsplit(written) if "?" in written or "://" in written else None
    if address is not None:
        inner = parse_qs(address.query).get("d")
        yield from inner or ()
        yield unquote(address.path)
    if "%" in written:
        yield unquote(written)


def _inside(parts: Iterable[str]) -> Iterator[str]:
    """The parts behind the last ".." and the drive; a name can so never lead out of the data folder."""
    kept: list[str] = []
    for part in parts:
        kept = [] if part == ".." else [*kept, part]
    return iter(kept)


@lru_cache(maxsize=256)
def _folders(base: str, split: str) -> tuple[str, ...]:
    """Where to look, each "" or ending in "/"."""
    found = []
    for start in (base, "", _parent(base)):
        for place in PLACES:
            below = place.format(split=split)
            if split or "{split}" not in place:
                found.append(f"{start}{below}/" if below else start)
    return tuple(dict.fromkeys(found))


def _parent(base: str) -> str:
    head = base.rstrip("/").rpartition("/")[0]
    return f"{head}/" if head else ""


def _key(file: str) -> str:
    """A file by sight, its ending in lower case."""
    name, suffix = split_suffix(file)
    return by_sight(name) + suffix.lower()
