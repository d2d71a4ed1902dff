"""The readers by name, and the choice of one for a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsss.data.readers.folder import FOLDER
from wsss.data.readers.reader import Reader
from wsss.data.readers.voc import VOC
from wsss.data.walking import is_folder
from wsss.errors import DataError

READERS: dict[str, Reader] = {reader.name: reader for reader in (VOC, FOLDER)}

USUAL_PLACES = ("VOC2012", "VOCdevkit/VOC2012")
"""Where the data folder often lies when its parent was given."""


def find_reader(
    root: Path, layout: str = "auto", tags: Path | None = None, readers: Mapping[str, Reader] = READERS
) -> Reader:
    """The reader of a data folder.

    Args:
        root: the folder.
        layout: the name of a reader, or "auto" for the one that recognises the folder.
        tags: the table of tags, where it is not at the root.
        readers: those to choose from.

    Raises:
        DataError: the folder is missing, is not of the format asked for or of any, or is of several.
    """
    if not is_folder(root):
        raise DataError(f"{root}: no such data folder", f"ls {root.parent}")
    asked = readers if layout == "auto" else {layout: readers[layout]}
    reasons = recognise(root, tags, asked)
    if len(reasons) > 1:
        seen = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise DataError(f"{root}: several data formats: {seen}", f"--set data.layout={next(iter(reasons))}")
    if reasons:
        return readers[next(iter(reasons))]
    raise _no_data_set(root, asked)


def recognise(root: Path, tags: Path | None = None, readers: Mapping[str, Reader] = READERS) -> dict[str, str]:
    """Why a folder is of a format, by the name of its reader; without readers over which another of them wins."""
    found = {name: reason for name, reader in readers.items() if (reason := reader.sniff(root, tags)) is not None}
    beaten = {other for name in found for other in readers[name].wins_over}
    return {name: reason for name, reason in found.items() if name not in beaten}


def _no_data_set(root: Path, readers: Mapping[str, Reader]) -> DataError:
    """The error for a folder that no reader recognises, with the folder below it that one does."""
    nested = next((place for place in USUAL_PLACES if is_folder(root / place) and recognise(root / place)), None)
    sought = ", and for ".join(reader.looks_for for reader in readers.values())
    return DataError(
        f"{root}: no data set there; looked for {sought}",
        f"give {root / nested} instead"
        if nested
        else f"write {root / 'tags.csv'}: header image,labels and a line for each image (see data/README.md)",
    )
