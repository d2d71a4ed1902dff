"""Names compared as people compare them: by sight, and near names where none fits.

Two names *look the same* if they differ in their Unicode form, in the kind or number of spaces, or in characters that
cannot be seen. Such names are taken for one where only one can be meant. Names that differ in more are never taken for
one another; messages name the nearest and what differs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import NamedTuple
from urllib.parse import unquote

MOST_COMPARED = 1000
"""Names among which one of near spelling is sought; comparing takes a tenth of a second for as many."""
JOINERS = "\u200c\u200d"
"""Characters that cannot be seen but change how the letters beside them look."""
QUOTES = "'\"`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
SHORTENED = re.compile(r"\d(\.\d+)?[eE]\+?\d+")
"""A number as spreadsheets write it that has more digits than they show."""
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DATE = re.compile(
    rf"\d{{1,2}}[-/. ]{_MONTH}([-/. ]\d{{2,4}})?|{_MONTH}[-/. ]\d{{1,4}}|\d{{4}}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?"
    r"|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}",
    re.IGNORECASE,
)
"""A date as spreadsheets write it, perhaps made of a name such as MARCH1."""


class Near(NamedTuple):
    """A name near another, and in what the two differ."""

    name: str
    why: str


def by_sight(name: str) -> str:
    """The form that all names have in common that look the same.

    In Unicode form NFC, each run of white space one space, none beside a "/" or at an end, without characters that
    cannot be seen.
    """
    if name.isascii() and " " not in name and name.isprintable():  # most names, quickly
        return name
    spaced = "".join(" " if letter.isspace() else letter for letter in name)
    seen = (letter for letter in spaced if unicodedata.category(letter) not in ("Cc", "Cf") or letter in JOINERS)
    parts = " ".join("".join(seen).split()).split("/")
    return unicodedata.normalize("NFC", "/".join(part.strip() for part in parts))


@lru_cache(maxsize=4096)  # the labels of a table are few
def tidy(label: str) -> str:
    """A label in Unicode form NFC, each run of white space one space, none at its ends."""
    return unicodedata.normalize("NFC", " ".join(label.split()))


def _without_zeros(name: str) -> str:
    """A name whose numbers have no leading zeros and no decimals that are zero."""
    whole = re.sub(r"(?<=\d)\.0+(?!\d)", "", by_sight(name))
    return re.sub(r"(?<!\d)0+(?=\d)", "", whole)


def _value(name: str) -> str:
    """A number written in any way ("1e5", "100000"), with the ending of its file; other names as they are."""
    stem = _without_ending(name)
    try:
        return repr(float(stem)) + name[len(stem) :].casefold() if name[:1].isdigit() else name
    except ValueError:
        return name


def _letters(name: str) -> str:
    """A name in lower case without spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", by_sight(name)).casefold())


def _without_ending(name: str) -> str:
    """The name of a file without its ending; other names as they are."""
    return re.sub(r"(?<=.)\.[A-Za-z]{2,4}$", "", name)


WAYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("they differ in their Unicode form, in spaces or in characters that cannot be seen", by_sight),
    ("", lambda name: by_sight(name).casefold()),
    ("they differ in zeros before or behind a number, as after a spreadsheet", _without_zeros),
    ("they are one number in two spellings, as after a spreadsheet", _value),
    ("one of them is written as in an address", lambda name: unquote(by_sight(name)).casefold()),
    ("they differ in quotes", lambda name: by_sight(name).strip(QUOTES + " ")),
    ("they differ in spaces, hyphens or underscores", _letters),
    ("they differ in their ending", lambda name: _without_ending(by_sight(name))),
    ("they differ in their folder", lambda name: by_sight(name).rsplit("/", 1)[-1]),
    (
        "they differ in their folder and in zeros before a number",
        lambda name: _without_zeros(name.rsplit("/", 1)[-1]).casefold(),
    ),
)
"""In what two names differ that have the same form, where that is not plain to see; the least first."""


class NearNames:
    """Names among which the nearest to another is sought.

    Args:
        names: those that exist.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(dict.fromkeys(names))

    @cached_property
    def _by_form(self) -> list[dict[str, str | None]]:
        """For each of ``WAYS`` the name of each form; None where several names have it."""
        forms: list[dict[str, str | None]] = [{} for _ in WAYS]
        for name in self._names:
            for (_, form), known in zip(WAYS, forms, strict=True):
                key = form(name)
                known[key] = None if key in known else name
        return forms

    def find(self, name: str) -> Near | None:
        """The nearest name and in what it differs; None where none is near, or several are as near."""
        for (why, form), known in zip(WAYS, self._by_form, strict=True):
            found = known.get(form(name))
            if found is not None:
                return Near(found, why)
        if len(self._names) > MOST_COMPARED:
            return None
        lower = {_without_ending(other).casefold(): other for other in self._names}
        near = get_close_matches(_without_ending(name).casefold(), lower, n=3)
        spelled = [other for other in near if _digits(other) == _digits(name)]  # other numbers are other names
        return Near(lower[spelled[0]], "") if spelled else None

    def ask(self, name: str, question: str = "did you mean '{}'?") -> str:
        """The nearest name in brackets: " (did you mean 'cat'?)", with what differs; empty where there is none."""
        near = self.find(name)
        if near is not None:
            asked = question.format(near.name)
            why = f"{' ' if asked.endswith('?') else ': '}{near.why}" if near.why else ""
            return f" ({asked}{why})"
        if SHORTENED.fullmatch(name):
            return " (a number that a spreadsheet has shortened?)"
        return " (a date that a spreadsheet made of a name?)" if DATE.fullmatch(_without_ending(name)) else ""


def _digits(name: str) -> str:
    return "".join(letter for letter in name if letter.isdigit())


def same_by_sight(wanted: Iterable[str], existing: Collection[str]) -> Mapping[str, str]:
    """For wanted names that do not exist, the one existing name that looks the same and that nothing else wants.

    Args:
        wanted: names as a table writes them.
        existing: names on the disk.

    Returns:
        The existing name by the wanted one; only where one alone wants it and it is the only one that looks so.
    """
    wanted = dict.fromkeys(wanted)  # in their order
    missing = [name for name in wanted if name not in existing]
    if not missing:
        return {}
    wants, exists = _by_look(missing), _by_look(name for name in existing if name not in wanted)
    return {names[0]: exists[look][0] for look, names in wants.items() if len(names) == len(exists.get(look, ())) == 1}


def _by_look(names: Iterable[str]) -> dict[str, list[str]]:
    looks: dict[str, list[str]] = {}
    for name in names:
        looks.setdefault(by_sight(name), []).append(name)
    return looks


def spellings(name: str) -> tuple[str, ...]:
    """A name and its Unicode forms NFC and NFD, each once, under which a file may lie."""
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return (name,) if name.isascii() else tuple(dict.fromkeys((name, *forms)))
