"""Faults of a data set, and errors that list them.

The readers call a ``Note`` with every fault. Training passes ``refuse``, which raises the first one;
``wsss data check`` passes a function that collects them, so that both find the same faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from wsss.data.mends import MENDS
from wsss.errors import DataError

Severity = Literal["error", "warning"]

KINDS: dict[str, Severity] = {
    # text files: tables, class names, split lists
    "text-unreadable": "error",
    "text-encoding": "error",
    "table-header": "error",
    "table-columns": "error",
    "table-format": "error",
    "table-empty": "error",
    "table-fields": "error",
    "table-split": "error",
    "table-second": "warning",
    "table-several": "error",
    "cell-blank": "warning",
    "column-unread": "warning",
    "path-outside": "error",
    "annotation-unreadable": "error",
    "annotation-several": "error",
    "annotators-differ": "warning",
    "tag-field": "error",
    "annotation-size": "warning",
    "annotation-name": "warning",
    # splits, tags and classes
    "split-missing": "error",
    "split-empty": "error",
    "split-alike": "warning",
    "split-overlap": "warning",
    "split-differs": "warning",
    "image-twice": "error",
    "image-missing": "error",
    "image-untagged": "error",
    "image-unlabelled": "warning",
    "image-ambiguous": "error",
    "name-twice": "error",
    "name-form": "warning",
    "name-alike": "warning",
    "tags-none": "error",
    "tag-digits": "error",
    "tag-ambiguous": "error",
    "tag-unknown": "error",
    "label-notation": "error",
    "label-nothing": "warning",
    "label-spaces": "warning",
    "tags-differ": "warning",
    "class-twice": "error",
    "class-background": "error",
    "class-count": "error",
    "class-alike": "warning",
    "class-joined": "warning",
    "class-cut": "warning",
    "class-letters": "warning",
    "class-unused": "warning",
    "class-ignored": "warning",
    "class-none": "warning",
    "class-left-out": "warning",
    "class-order": "warning",
    "class-spreadsheet": "warning",
    "class-no-object": "warning",
    "crowd-read": "warning",
    # what tags cannot teach
    "class-everywhere": "warning",
    "class-together": "warning",
    "class-source": "warning",
    "set-small": "warning",
    "class-few": "warning",
    "mask-order": "warning",
    # files and folders
    "folder-unreadable": "error",
    "folder-left-out": "warning",
    "folder-absent": "warning",
    "label-file-missing": "warning",
    "link-lost": "warning",
    "file-ignored": "warning",
    "shard-broken": "error",
    "shard-member": "error",
    # images
    "image-irregular": "error",
    "image-empty": "error",
    "image-unknown": "error",
    "image-huge": "error",
    "image-truncated": "error",
    "image-broken": "error",
    "image-undecodable": "error",
    "image-turned": "error",
    "image-suffix": "warning",
    "image-16-bit": "warning",
    "image-cmyk": "warning",
    "image-alpha": "warning",
    "image-animated": "warning",
    "image-small": "warning",
    "image-narrow": "warning",
    "image-copy": "warning",
    # masks, for scoring
    "mask-unreadable": "error",
    "mask-format": "error",
    "mask-size": "error",
    "mask-class": "error",
    "mask-missing": "warning",
    "mask-elsewhere": "warning",
    "mask-unused": "warning",
    "shape-unreadable": "error",
    "shape-size": "error",
    "mask-turned": "warning",
    "mask-binary": "warning",
    "mask-palette": "warning",
    "mask-tags": "warning",
    # saliency maps
    "saliency-missing": "error",
    "saliency-unreadable": "error",
    "saliency-format": "error",
    "saliency-size": "error",
    "saliency-turned": "warning",
    "saliency-range": "warning",
}
"""How bad each kind is: training refuses or skips an error, and reads the image in spite of a warning."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file, perhaps a line of it (from 1) or an entry of a JSON object."""

    path: Path
    line: int | None = None
    entry: str | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.path} line {self.line}"
        return str(self.path) if self.entry is None else f"{self.path} entry '{self.entry}'"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        kind: a key of ``KINDS``.
        place: where it is.
        what: what is wrong there.
        mend: what mends it: words, an option or a command; empty where ``what`` says it all.
    """

    kind: str
    place: Place
    what: str
    mend: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.mend:
            object.__setattr__(self, "mend", MENDS.get(self.kind, ""))

    @property
    def severity(self) -> Severity:
        """Error or warning; see ``KINDS``."""
        return KINDS[self.kind]

    @property
    def where(self) -> str:
        """The path, and after a colon the line where there is one."""
        return str(self.place.path) if self.place.line is None else f"{self.place.path}:{self.place.line}"

    def as_row(self) -> dict[str, str]:
        """Plain values for a table or for JSON."""
        row = {"severity": self.severity, "kind": self.kind, "where": self.where, "what": self.what}
        return {**row, "mend": self.mend}


def in_one_line(text: str) -> str:
    """A text without line breaks, which names of files and classes may have: an error is printed in one line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


class BadData(DataError):
    """An error with the list of faults that it sums up.

    Args:
        problem: see ``WsssError``.
        fix: see ``WsssError``.
        findings: the faults, all of them, where ``problem`` names a few.
    """

    def __init__(self, problem: str, fix: str, findings: Iterable[Finding]) -> None:
        super().__init__(in_one_line(problem), in_one_line(fix))
        self.findings = tuple(one if one.mend else replace(one, mend=fix) for one in findings)
        if self.findings:
            self.kind = self.findings[0].kind

    @property
    def severity(self) -> Severity:
        """Warning where all findings are warnings, else error."""
        return "warning" if self.findings and all(one.severity == "warning" for one in self.findings) else "error"

    @classmethod
    def at(cls, kind: str, place: Place | Path, what: str, fix: str) -> BadData:
        """One fault at one place."""
        place = place if isinstance(place, Place) else Place(place)
        return cls(f"{place}: {what}", fix, [Finding(kind, place, what)])


Note = Callable[[BadData], None]
"""Called with a fault. If it returns, the reader leaves out what is at fault and continues."""


def refuse(error: BadData) -> None:
    """The ``Note`` that raises every fault, and passes over warnings."""
    if error.severity == "error":
        raise error


def telling(say: Callable[[str], None]) -> Note:
    """A ``Note`` that raises every fault and says each warning once, since it tells what was guessed or left out."""
    said: set[str] = set()

    def note(error: BadData) -> None:
        refuse(error)
        if error.problem not in said:
            said.add(error.problem)
            say(error.problem)

    return note
