"""Class names that may be a slip: several labels that were not separated, a misspelt one, one name in two spellings."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from wsss.data.findings import Finding, Place
from wsss.data.readers.tag_table import TagFile
from wsss.data.records import counted

RARE = 2
"""Images that a misspelt class has at most."""
TIMES = 10
"""How much more often the class is there that was meant."""


def odd_labels(table: TagFile) -> Iterator[Finding]:
    """What is odd about the labels of a table where it alone tells the class names."""
    yield from joined_labels(table)
    yield from misspelt_labels(table)


def joined_labels(table: TagFile) -> Iterator[Finding]:
    """Names of several words, one of them a class, that never stand beside another label: perhaps two labels.

    Where each of the words is a class, ``TagFile.classes`` refuses them.
    """
    labels = {label for line in table.lines.values() for label in line.labels}
    beside = {label for line in table.lines.values() if len(line.labels) > 1 for label in line.labels}
    for name in sorted(labels - beside):
        words = name.split()
        known = [word for word in words if word in labels]
        if len(words) > 1 and 0 < len(known) < len(words):
            what = f"'{name}' is one class, '{known[0]}' another; did you mean '{';'.join(words)}'?{table.why_joined()}"
            yield Finding("class-joined", place_of(table, name), what)


def misspelt_labels(table: TagFile) -> Iterator[Finding]:
    """Names of next to no images that are one slip away from a name of many."""
    counts = Counter(label for line in table.lines.values() for label in line.labels)
    frequent = [name for name, count in counts.most_common() if count >= TIMES]
    for name, count in sorted(counts.items()):
        near = (other for other in frequent if count * TIMES <= counts[other] and one_slip(bare(name), bare(other)))
        meant = next(near, None) if count <= RARE else None
        if meant is not None:
            what = f"'{name}' ({counted(count, 'image')}) or '{meant}' ({counts[meant]})?"
            yield Finding("class-alike", place_of(table, name), what)


def alike_names(names: Iterable[str], place: Place) -> Iterator[Finding]:
    """Pairs of names that differ in nothing one would call a difference."""
    first: dict[str, str] = {}
    for name in dict.fromkeys(names):
        other = first.setdefault(bare(name), name)
        if other != name:
            yield Finding("class-alike", place, f"{other!r} and {name!r} are two classes, but may be meant to be one")


def place_of(table: TagFile, label: str) -> Place:
    """The first line that has a label."""
    return next(line.place for line in table.lines.values() if label in line.labels)


def bare(name: str) -> str:
    """A name without case, white space, hyphens, underscores and what cannot be seen."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in letters if letter not in "-_ " and unicodedata.category(letter)[0] not in "CZ")


def one_slip(first: str, second: str) -> bool:
    """Whether two names differ by one letter, left out, added or another, or by two neighbours exchanged.

    A digit is no slip: it numbers.
    """
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    edited = max(len(first), len(second)) == 1
    exchanged = len(first) == 2 and first == second[::-1]
    return (edited or exchanged) and not any(letter.isdigit() for letter in first + second)
