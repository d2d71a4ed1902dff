"""Class names that may be a mistake: labels that were not separated, a misspelt name, one name in two spellings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from wsss.data.findings import Finding, Place
from wsss.data.readers.label_fields import is_cut
from wsss.data.readers.tag_table import TagFile
from wsss.data.records import counted

RARE = 2
"""A class of more images is not taken for a misspelt one."""
NUMBER_ZEROS = re.compile(r"^0+(?=\d+(\.0+)?$)|(?<=\d)\.0+$")
"""Zeros that a table gains or loses where it takes a name for a number."""
CONNECTION = re.compile(r"[+/&\\]|(?:^|(?<=\s))(?:and|und|et|y|plus|with)(?=\s|$)", re.IGNORECASE)
"""What people write between two labels where a table wants a separator."""
SCORED = re.compile(r".*[^\d\s.]\s*[:=]\s*\d*\.?\d+%?")
"""A name with a score behind it: "cat:0.93"."""
TIMES = 10
"""The class that was meant has at least this many times more images."""


def odd_labels(table: TagFile) -> Iterator[Finding]:
    """Warnings about the labels of a table, where the class names come from it alone."""
    yield from joined_labels(table)
    yield from connected_labels(table)
    yield from misspelt_labels(table)
    yield from cut_labels(table)
    yield from strange_labels(table)


def cut_labels(table: TagFile) -> Iterator[Finding]:
    """Warnings about names with the punctuation of a list or of quotes, as after splitting another notation."""
    for name in sorted({label for line in table.lines.values() for label in line.labels}):
        if is_cut(name):
            what = f"the class {name!r} has a quote at its end or half of a pair of brackets"
            yield Finding("class-cut", _place_of(table, name), what)


def strange_labels(table: TagFile) -> Iterator[Finding]:
    """Warnings about names with a score, of mixed alphabets, or read in the wrong encoding."""
    for name in sorted({label for line in table.lines.values() for label in line.labels}):
        alphabets = {unicodedata.name(letter, "?").split()[0] for letter in name if letter.isalpha()}
        if SCORED.fullmatch(name):
            yield Finding("class-letters", _place_of(table, name), f"the class '{name}' ends in a number, as a score")
        elif (meant := misread(name)) is not None:
            what = f"the class '{name}' may be '{meant}', read in the wrong encoding"
            yield Finding("class-letters", _place_of(table, name), what, "save the table as UTF-8")
        elif len(alphabets & {"LATIN", "CYRILLIC", "GREEK"}) > 1:
            what = f"the class '{name}' ({name!a}) mixes {' and '.join(sorted(alphabets))} letters, which look alike"
            yield Finding("class-letters", _place_of(table, name), what)


def misread(text: str) -> str | None:
    """What a text was before UTF-8 was read as Windows-1252, once; None where it was not."""
    try:
        meant = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None
    return meant if meant != text else None


def joined_labels(table: TagFile) -> Iterator[Finding]:
    """Warnings about names of several words, one of them a class, that are never used beside another label.

    Such a name may be two labels. Where each of the words is a class, ``TagFile.classes`` raises.
    """
    labels = {label for line in table.lines.values() for label in line.labels}
    beside = {label for line in table.lines.values() if len(line.labels) > 1 for label in line.labels}
    for name in sorted(labels - beside):
        words = name.split()
        known = [word for word in words if word in labels]
        if len(words) > 1 and 0 < len(known) < len(words):
            what = f"'{name}' is one class, '{known[0]}' another; did you mean '{';'.join(words)}'?{table.why_joined()}"
            yield Finding("class-joined", _place_of(table, name), what)


def connected_labels(table: TagFile) -> Iterator[Finding]:
    """Warnings about labels that people connect by other characters: "cat+dog", "cat / dog", "cat and dog"."""
    labels = {label for line in table.lines.values() for label in line.labels}
    for name in sorted(labels):
        parts = [part.strip() for part in CONNECTION.split(name)]
        if len(parts) > 1 and not any(parts):
            what = f"'{name}' is a class, since white space separates labels{table.why_joined()}"
            yield Finding("class-joined", _place_of(table, name), what)
        elif len(parts) > 1 and all(parts) and labels.intersection(parts):
            known = next(part for part in parts if part in labels)
            what = f"'{name}' is one class, '{known}' another; did you mean '{';'.join(parts)}'?"
            yield Finding("class-joined", _place_of(table, name), what)


def misspelt_labels(table: TagFile) -> Iterator[Finding]:
    """Warnings about names of at most ``RARE`` images that differ by one slip from a name of many images."""
    counts = Counter(label for line in table.lines.values() for label in line.labels)
    frequent = [name for name, count in counts.most_common() if count >= TIMES]
    for name, count in sorted(counts.items()):
        near = (other for other in frequent if count * TIMES <= counts[other] and one_slip(_bare(name), _bare(other)))
        meant = next(near, None) if count <= RARE else None
        if meant is not None:
            what = f"'{name}' ({counted(count, 'image')}) or '{meant}' ({counts[meant]})?"
            yield Finding("class-alike", _place_of(table, name), what)


def alike_names(names: Iterable[str], place: Place) -> Iterator[Finding]:
    """Warnings about pairs of names that differ in case, spaces, hyphens, unseen characters or zeros alone."""
    first: dict[str, str] = {}
    for name in dict.fromkeys(names):
        other = first.setdefault(NUMBER_ZEROS.sub("", _bare(name)), name)
        if other != name:
            yield Finding("class-alike", place, f"{other!r} and {name!r} are two classes, but may be meant to be one")


def _place_of(table: TagFile, label: str) -> Place:
    """The first line that has a label."""
    return next(line.place for line in table.lines.values() if label in line.labels)


def _bare(name: str) -> str:
    """A name in lower case without white space, hyphens, underscores and invisible characters."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in letters if letter not in "-_ " and unicodedata.category(letter)[0] not in "CZ")


def one_slip(first: str, second: str) -> bool:
    """Whether two names differ by one letter that is left out, added or replaced, or by two letters exchanged.

    Names that differ in a digit are two numbers and no slip.
    """
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    edited = max(len(first), len(second)) == 1
    exchanged = len(first) == 2 and first == second[::-1]
    return (edited or exchanged) and not any(letter.isdigit() for letter in first + second)
