"""Class names that mean no class, that a spreadsheet changed, or whose numbers were sorted as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from wsss.data.findings import Finding, Place
from wsss.data.near_names import DATE, SHORTENED
from wsss.data.readers.class_rules import IGNORED
from wsss.reporting import first_few

MEAN_BACKGROUND = frozenset({"bg", "backgrnd", "background", "nobject", "noobject", "nothing", "empty", "none"})
MEAN_IGNORED = frozenset({"ignored", "unknown", "undefined", "dontcare", "border", "boundary", "unannotated"})
"""Names without spaces and punctuation, in lower case, that mean class index 0, or pixels that are ignored."""
CELL_ERROR = re.compile(r"#(NAME\?|REF!|VALUE!|N/A|DIV/0!|NUM!|NULL!)|TRUE|FALSE")
DECIMAL = re.compile(r"\d+\.0+")


def odd_names(classes: Sequence[str], place: Place) -> Iterator[Finding]:
    """Warnings about the names of the classes of a set.

    Args:
        classes: in the order of their indices.
        place: the file or folder that they come from.
    """
    yield from _no_objects(classes, place)
    yield from _changed(classes, place)
    yield from _sorted_as_text(classes, place)


def _no_objects(classes: Sequence[str], place: Place) -> Iterator[Finding]:
    for name in classes:
        letters = "".join(letter for letter in name.casefold() if letter.isalnum())
        if letters in MEAN_IGNORED or name.casefold() in IGNORED:
            mend = f"take {name!r} out of the classes and tags (--ignore {name!r} in annotation files); masks have 255"
            yield Finding("class-no-object", place, f"the class {name!r} may mean pixels that are ignored", mend)
        elif letters in MEAN_BACKGROUND and name.casefold() != "background":  # that is an error
            mend = f"take {name!r} out of the classes; an image of no class has an empty label (--none {name!r})"
            what = f"the class {name!r} may mean the background, which has index 0 and is never listed"
            yield Finding("class-no-object", place, what, mend)


def _changed(classes: Sequence[str], place: Place) -> Iterator[Finding]:
    whole = [name for name in classes if DECIMAL.fullmatch(name)]
    reasons = {
        "a number that a spreadsheet has shortened": [name for name in classes if SHORTENED.fullmatch(name)],
        "a date that a spreadsheet made of a name": [name for name in classes if DATE.fullmatch(name)],
        "an error or a truth value of a spreadsheet": [name for name in classes if CELL_ERROR.fullmatch(name)],
        "a whole number that a table stored with decimals": whole if len(whole) == len(classes) else [],
    }
    for reason, names in reasons.items():
        if names:
            which = "the class" if len(names) == 1 else f"{len(names)} classes:"
            what = f"{which} {first_few([repr(name) for name in names], 5)} may be {reason}"
            mend = "format the column as text, write the names again, and export the table"
            yield Finding("class-spreadsheet", place, what, mend)


def _sorted_as_text(classes: Sequence[str], place: Place) -> Iterator[Finding]:
    """A warning where "10" comes before "2"."""
    if list(classes) != sorted(classes) or list(classes) == sorted(classes, key=_by_numbers):
        return
    before, after = next(pair for pair in pairwise(classes) if _by_numbers(pair[0]) > _by_numbers(pair[1]))
    what = f"{before!r} comes before {after!r}: numbers are sorted as text, and class indices follow this order"
    mend = "list the classes in the order of their indices: classes.txt, or --classes A,B,C"
    yield Finding("class-order", place, what, mend)


def _by_numbers(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts the numbers in names by their value."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name))
