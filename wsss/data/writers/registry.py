"""The writers by name."""

from __future__ import annotations

from wsss.data.near_names import NearNames
from wsss.data.writers.folder import FOLDER
from wsss.data.writers.writer import Writer
from wsss.errors import UsageError

WRITERS: dict[str, Writer] = {writer.name: writer for writer in (FOLDER,)}


def find_writer(name: str) -> Writer:
    """The writer of a format.

    Raises:
        UsageError: there is none.
    """
    if name not in WRITERS:
        near = NearNames(WRITERS).ask(name)
        raise UsageError(f"no writer '{name}'{near}; there are {', '.join(WRITERS)}", "wsss data formats")
    return WRITERS[name]
