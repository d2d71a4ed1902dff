"""What a reader of a data format is: it recognises a folder, and opens it as a source of splits.

A new format is one file with a ``Reader`` in it, listed in ``wsss.data.readers.registry``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wsss.config import Reading
from wsss.data.findings import Finding, Note, refuse
from wsss.data.photographs import Photographs as Photographs
from wsss.data.readers.listing import Listing
from wsss.data.records import TaggedSet
from wsss.reporting import Reporter, Silent


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the user gave beside the folder.

    Attributes:
        reading: how the folder is read (``wsss.reading.Reading``).
        classes: class names that were given, in their order, or None.
        need_tags: otherwise images without tags are allowed, as in a test split.
        note: called with each fault; if it returns, what is at fault is left out.
        reporter: gets the progress of reading a large file.
    """

    reading: Reading = field(default_factory=Reading)
    classes: tuple[str, ...] | None = None
    need_tags: bool = True
    note: Note = refuse
    reporter: Reporter = field(default_factory=Silent)


class Source(Protocol):
    """A data folder, opened by its reader."""

    def splits(self) -> tuple[str, ...]:
        """Names of its splits.

        Raises:
            DataError: there is none.
        """

    def listing(self, split: str) -> Listing:
        """One of these splits.

        Raises:
            DataError: images are missing or have no tags, or a file of the data set is at fault.
        """


Contradictions = Callable[
    [Path, "Path | None", Mapping[str, "tuple[int, int] | None"], Sequence[TaggedSet]], Iterable[Finding]
]
"""Given the folder, ``Options.tags``, (H, W) of each image by its name (None: unreadable) and the opened splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A data format.

    Attributes:
        name: as in ``data.format`` of the config.
        looks_for: what makes a folder one of this format, for messages.
        sniff: given the folder and how it is to be read, why the folder is of this format; None where it is not.
        open: the folder as a source. It may read the tables of the data set, and opens no image.
        photographs: all images on disk, listed or not. No file is opened.
        lists_all: whether an image on disk that no split lists is a fault.
        wins_over: names of readers that may recognise the same folder, and are then left aside.
        nearly: given the folder, what alone keeps it from being of this format, and what mends that; None where it is
            not near.
        contradictions: what two sources of a data set say differently where one of them is not used; for
            ``wsss data check``.
    """

    name: str
    looks_for: str
    sniff: Callable[[Path, Reading], str | None]
    open: Callable[[Path, Options], Source]
    photographs: Callable[[Path, Note], Photographs]
    lists_all: bool
    wins_over: tuple[str, ...] = ()
    nearly: Callable[[Path], tuple[str, str] | None] = lambda root: None
    contradictions: Contradictions | None = None
