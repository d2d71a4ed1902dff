"""`wsss review`: which label maps of a folder to look at first.

Of pseudo labels these are the ones with the largest share of ignored pixels, where class maps and decoder disagree; of
predictions those whose likeliest and second likeliest class are nearest. Both were chosen by measurements
(benchmarks/results/review.md); the figures come from the journal, so no image is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss.data.masks import count_indices, read_mask
from wsss.data.threads import in_threads
from wsss.errors import DataError
from wsss.files import files_below
from wsss.outputs.journal import Entry, read_journal
from wsss.outputs.manifest import find_predictions

Why = Literal["ignored", "margin"]
"""What doubt is: the share of ignored pixels, or 1 less the mean margin between the two likeliest classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubtful:
    """A label map in the queue.

    Attributes:
        name: of the image.
        doubt: in [0, 1]; the queue begins with the largest.
        why: see ``Why``.
        classes: names of the classes of its pixels.
        label: its file.
        image: the image that it was made from; None where that is unknown.
    """

    name: str
    doubt: float
    why: Why
    classes: tuple[str, ...]
    label: Path
    image: Path | None


def review_queue(folder: Path) -> list[Doubtful]:
    """All label maps of a folder, the most doubtful first; equal ones in the order of their names.

    Args:
        folder: of make-pseudo or predict, or a plain folder of label maps NAME.png, whose ignored pixels count.

    Raises:
        DataError: there is no such folder or no label map, or nothing in it says what is doubtful.
    """
    found = find_predictions(folder)
    journal = read_journal(found.labels.parent if found.labels.name == "labels" else found.labels)
    files = {path.relative_to(found.labels).as_posix()[:-4]: path for path in files_below(found.labels)}
    names = sorted(name for name, path in files.items() if path.suffix == ".png")
    if not names:
        raise DataError(f"{found.labels}: no label map in it", f"ls -R {found.labels}")
    by_margin = found.making.kind == "segmentation"

    def doubtful(name: str) -> Doubtful | None:
        entry = journal.get(name)
        pixels = entry.pixels if entry is not None else count_indices(read_mask(files[name]))
        doubt = doubt_of(entry, pixels, by_margin=by_margin)
        if doubt is None:
            return None
        held = (k for k in sorted(pixels) if 0 < k < 255)
        named = found.making.classes or ()
        return Doubtful(
            name=name,
            doubt=round(doubt, 4),
            why="margin" if by_margin else "ignored",
            classes=tuple(named[k - 1] if k <= len(named) else str(k) for k in held),
            label=files[name],
            image=None if entry is None else Path(entry.origin),
        )

    queue = [one for one in in_threads(doubtful, names) if one is not None]
    if len(queue) < len(names):
        what = f"{folder}: {len(names) - len(queue)} of its masks were made before certainties were kept"
        raise DataError(what, "make them again: wsss predict RUN IMAGES -o OUT --overwrite")
    return sorted(queue, key=lambda one: (-one.doubt, one.name))


def doubt_of(entry: Entry | None, pixels: dict[int, int], *, by_margin: bool) -> float | None:
    """The doubt of a label map, in [0, 1]; None where it is that of a margin which the journal does not hold."""
    if not by_margin:
        return pixels.get(255, 0) / max(1, sum(pixels.values()))
    sure = None if entry is None else entry.mean_certainty
    return None if sure is None else 1 - sure
