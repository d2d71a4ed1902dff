"""What masks and tags of the same images say differently, once the masks are counted: a score may then mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

from wsss.data.records import TaggedSet
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.reporting import first_few


def odd_truth(matrix: ConfusionMatrix, tagged: TaggedSet) -> list[str]:
    """Remarks on classes that the tags of scored images name and no mask holds, and the reverse; none without tags.

    Masks of 0 and 255 alone, or of another order of classes, are found so.
    """
    records = [record for record in tagged.records if tagged.has_truth(record)]
    named = {tag for record in records for tag in (*record.tags, *record.unknown)}
    if not any(record.tags for record in records):
        return []
    pixels_C = matrix.counts.sum(axis=1)
    held = {k for k in range(len(tagged.classes)) if pixels_C[k + 1]}
    mend = f"; wsss data check {tagged.root} compares them"
    remarks = []
    if missing := {tag for record in records for tag in record.tags} - held:
        names = _names(missing, tagged.classes)
        all_of_them = " of any class" if not held else ""
        remarks.append(f"no mask holds a pixel{all_of_them or f' of {names}'}, but tags name {names}{mend}")
    if more := held - named:
        names = _names(more, tagged.classes)
        remarks.append(f"masks hold {names}, but no tag of these images names it{mend}")
    return remarks


def _names(indices: set[int], classes: Sequence[str]) -> str:
    return first_few([repr(classes[k]) for k in sorted(indices)], 5)
