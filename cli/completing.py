"""What a shell offers after an option; imports no torch, since it runs at each press of the tab key."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Offer = Callable[[str], list[str]]
"""From the part of a word that was typed to the words that it may become."""


def words(*every: str) -> Offer:
    """One of these words."""

    def offer(incomplete: str) -> list[str]:
        return _beginning(incomplete, every)

    return offer


def presets(incomplete: str) -> list[str]:
    """Names of presets; where none fits, the shell offers files."""
    from wsss.config import preset_names

    return _beginning(incomplete, preset_names())


def assignments(incomplete: str) -> list[str]:
    """Config keys, each with its equals sign."""
    from wsss.config import known_keys

    return _beginning(incomplete, (f"{key}=" for key in known_keys()))


def written_formats(incomplete: str) -> list[str]:
    """Formats of data sets that are written."""
    from wsss.data.writers.registry import WRITERS

    return _beginning(incomplete, WRITERS)


def read_formats(incomplete: str) -> list[str]:
    """Formats of data sets that are read."""
    from wsss.data.readers.registry import READERS

    return _beginning(incomplete, ("auto", *READERS))


def kinds(incomplete: str) -> list[str]:
    """Kinds of errors and findings that have a page."""
    from wsss.explain.pages import pages

    return _beginning(incomplete, pages())


def _beginning(incomplete: str, every: Iterable[str]) -> list[str]:
    return [word for word in every if word.startswith(incomplete)]
