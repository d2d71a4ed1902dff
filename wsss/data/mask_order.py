"""Whether the masks of a split count its classes as its tags do: both are set beside each other, over all images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from wsss.data.findings import Finding, Place
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import TaggedSet
from wsss.reporting import first_few

FEW = 5
"""Classes of fewer masks show nothing."""
AGREE, SURE = 0.5, 0.8
"""From this share of tags that their masks hold, nothing is said; an index that agrees so well is that of a class."""


def mask_order(seen: Sequence[tuple[frozenset[int], frozenset[int]]], tagged: TaggedSet) -> Iterator[Finding]:
    """A finding where the masks hold other indices than the tags of their images, as a rule.

    Args:
        seen: for each mask the indices of its image's tags, from 1, and those that it holds.
        tagged: the split.
    """
    given = Counter(index for tags, _ in seen for index in tags)
    agreed = Counter(index for tags, found in seen for index in tags & found)
    if not given or agreed.total() >= AGREE * given.total() or max(given.values()) < FEW:
        return
    held = Counter(index for _, found in seen for index in found)
    objects = {*held} - {0, IGNORE_INDEX}
    place = Place(tagged.mask_folder or tagged.root)
    share = f"{given.total() - agreed.total()} of {given.total()} tags are not in the masks of their images"
    if len(objects) <= 1 and len(given) > 1:
        only = f"0 and {min(objects, default=IGNORE_INDEX)}"
        what = f"{share}: all masks hold {only} alone, objects and background, and there are {len(given)} classes"
        mend = "give each pixel the index of its class, 1 for the first; or train without these masks (--no-masks here)"
        yield Finding("mask-order", place, what, mend)
        return
    meant = {index: _index_of(index, seen, given, held) for index in sorted(given) if given[index] >= FEW}
    other = {index: value for index, value in meant.items() if value not in (None, index)}
    pairs = [f"{value} where the tags say {tagged.classes[index - 1]!r} ({index})" for index, value in other.items()]
    moved = bool(other) and all(value == index - 1 for index, value in other.items())
    what = f"{share}" + (f": masks hold {first_few(pairs, 5)}" if pairs else ": they may be of other images or classes")
    mend = "--mask-offset 1" if moved else "list the classes in the order of the masks' indices in classes.txt"
    yield Finding("mask-order", place, what, mend if pairs else "compare the names of masks and images")


def _index_of(
    index: int, seen: Sequence[tuple[frozenset[int], frozenset[int]]], given: Counter[int], held: Counter[int]
) -> int | None:
    """The index that masks hold where the tags have a class; None where no index is sure to be it."""
    beside = Counter(value for tags, found in seen if index in tags for value in found - {IGNORE_INDEX})
    score = {value: 2 * both / (given[index] + held[value]) for value, both in beside.items()}
    best = max(score, key=lambda value: score[value], default=None)
    return best if best is not None and score[best] >= SURE else None
