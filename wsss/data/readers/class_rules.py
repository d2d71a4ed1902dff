"""Which labels of an annotation file are classes, which say "none", and which mean ignored pixels; the same for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss.data.findings import BadData, Finding, Note, Place
from wsss.data.masks import IGNORE_INDEX
from wsss.data.near_names import tidy
from wsss.data.readers.reader import Options
from wsss.reporting import first_few

IGNORED = frozenset({"ignore", "ignore_region", "__ignore__", "void", "unlabeled", "unlabelled", "255"})
"""Labels that are no class: their pixels are ignored; in lower case."""
BACKGROUND = frozenset({"background", "_background_", "__background__"})
"""Names of class index 0; in lower case."""
NONE_NAMES = frozenset({"no finding", "healthy", "none", "negative", "normal"})
"""Labels that may mean "none of the classes"; it is proposed, never assumed. In lower case."""


class ClassRules:
    """The classes of a data set, and what each label of its files is.

    Args:
        options: of the reader; its ``note`` is called with what is no class.
        declared: names that the files declare, in their order; None where they declare none.
        seen: all labels that the files use.
        source: the file or folder that declares them, for messages.

    Attributes:
        classes: foreground names; class index k is ``classes[k - 1]``.

    Raises:
        DataError: there is no class.
    """

    def __init__(self, options: Options, declared: Sequence[str] | None, seen: Iterable[str], source: Path) -> None:
        reading = options.reading
        self._none = {tidy(name) for name in reading.none}
        self._keep = {tidy(name) for name in reading.keep}
        self._ignore = {tidy(name) for name in reading.ignore}
        self._left_out: Counter[str] = Counter()
        used = dict.fromkeys(tidy(name) for name in seen if tidy(name))
        names = list(dict.fromkeys(map(tidy, declared))) if declared is not None else sorted(used, key=_in_order)
        self._declared = set(names) | set(used)
        own = [name for name in names if self._is_class(name)]
        _say(options.note, source, [name for name in self._declared if self._is_ignored(name)], own)
        self.classes: tuple[str, ...] = options.classes or tuple(own)
        self._chosen = bool(reading.classes)
        self._index = {tidy(name): k for k, name in enumerate(self.classes, start=1)}
        if not self.classes:
            fix = "name the classes: --classes A,B,C"
            raise BadData.at("tags-none", source, "no image has a label, and no class is declared", fix)

    def labels(self, words: Iterable[str]) -> tuple[str, ...]:
        """The labels of one image that are classes, each once; others that the file knows are left out.

        A label that is unknown everywhere stays, so that it is refused with the nearest class.
        """
        kept = dict.fromkeys(tidy(word) for word in words if tidy(word) and self._is_class(tidy(word)))
        if self._chosen:
            self._left_out.update(label for label in kept if label not in self._index)
            return tuple(label for label in kept if label in self._index)
        return tuple(kept)

    def index(self, label: str) -> int:
        """The class index of the pixels of a label: 0 also for a class that was not chosen; IGNORE_INDEX."""
        name = tidy(label)
        return IGNORE_INDEX if self._is_ignored(name) else self._index.get(name, 0)

    def say_left_out(self, note: Note, source: Path) -> None:
        """Note the labels that were left out because ``--classes`` does not name them."""
        if self._left_out:
            named = first_few([f"{label} {count}" for label, count in sorted(self._left_out.items())])
            what = f"labels that --classes does not name are left out ({named})"
            note(BadData.at("class-left-out", source, what, "add them to --classes to learn them"))

    def _is_ignored(self, name: str) -> bool:
        return name in self._ignore or (name.casefold() in IGNORED and name not in self._keep)

    def _is_class(self, name: str) -> bool:
        background = name.casefold() in BACKGROUND and name not in self._keep
        return not (background or name in self._none or self._is_ignored(name))


def _in_order(name: str) -> tuple[bool, float, str]:
    """Sorts numbers as numbers, before words."""
    number = name.isdecimal()
    return (not number, float(name) if number else 0.0, name)


def _say(note: Note, source: Path, ignored: list[str], classes: list[str]) -> None:
    """Note labels that are taken for ignored, and classes whose name may mean none of them."""
    place = Place(source)
    if ignored:
        what = f"{first_few(sorted(ignored))}: no class; such pixels are ignored"
        note(BadData(f"{place}: {what}", "--class NAME  # makes it a class", [Finding("class-ignored", place, what)]))
    none = [name for name in classes if name.casefold() in NONE_NAMES]
    if none:
        what = f"'{none[0]}' is a class; does it mean that an image holds none of the classes?"
        note(BadData(f"{place}: {what}", f"--none '{none[0]}'", [Finding("class-none", place, what)]))
