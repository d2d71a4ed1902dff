"""What the tags of a split cannot teach, whatever the network: said before a training takes hours.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from wsss.config import ClassifySection, Optimisation
from wsss.data.findings import Finding, Place
from wsss.data.records import TaggedSet, counted
from wsss.data.sources import class_sources
from wsss.reporting import first_few

FEW_IMAGES = 10
"""A class of fewer images is learnt by heart rather than by what its objects share. Classes of fewer images may always
come together by chance."""
FEW_STEPS = 200
"""Fewer teach a network little; 390 is what a round of the smallest measured recipe takes (benchmarks/RESULTS.md)."""
SMALL_SET = 50
"""With 50 images a classifier has a tag mAP of 0.73 where 3,131 give 0.95 (benchmarks/RESULTS.md)."""
LESSONS = ("class-everywhere", "class-together", "class-source", "set-small", "class-few")
"""Kinds of these findings, the worst first."""


def lessons(tagged: TaggedSet, section: Optimisation | None = None) -> Iterator[Finding]:
    """All that the tags of a split cannot teach, the worst first.

    Args:
        tagged: the split that is trained on.
        section: epochs and batch size; None takes the defaults of train-cls.
    """
    yield from _everywhere(tagged)
    yield from _together(tagged)
    yield from class_sources(tagged)
    yield from _small_set(tagged, section or ClassifySection())
    yield from _few_images(tagged)


def worst_lesson(tagged: TaggedSet) -> Finding | None:
    """The worst finding of a split that a training is about to read; of its steps the training itself tells."""
    return next(chain(_everywhere(tagged), _together(tagged), class_sources(tagged), _few_images(tagged)), None)


def teaches_nothing(tagged: TaggedSet) -> bool:
    """Whether every class is in every image of which it is known: all answers are yes."""
    absent_K, present_K = _absent_and_present(tagged)
    return len(tagged) > 0 and bool(((absent_K == 0) & (present_K > 0)).all())


def _absent_and_present(tagged: TaggedSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) how many images are known to be without each class, and how many have it."""
    present_K = np.bincount(tagged.columns.tags.values, minlength=len(tagged.classes))
    unknown_K = np.bincount(tagged.columns.unknown.values, minlength=len(tagged.classes))
    return len(tagged) - present_K - unknown_K, present_K


def pairs_together(tags: Iterable[tuple[int, ...]], count: int) -> NDArray[np.int64]:
    """(K, K) how many images have both of two classes; on the diagonal, how many have one."""
    both_KK: NDArray[np.int64] = np.zeros((count, count), np.int64)
    for one in tags:
        both_KK[np.ix_(one, one)] += 1
    return both_KK


def epochs_of(images: int, section: Optimisation) -> int:
    """Epochs of a training on so many images: as the section says, or as many as make ``FEW_STEPS`` steps."""
    return section.epochs or max(section.least_epochs, math.ceil(FEW_STEPS / _steps_of_epoch(images, section)))


def steps_in_all(images: int, section: Optimisation) -> int:
    """Steps of a training on so many images."""
    return _steps_of_epoch(images, section) * epochs_of(images, section)


def _steps_of_epoch(images: int, section: Optimisation) -> int:
    return max(1, images // section.batch_size)


def _place(tagged: TaggedSet) -> Place:
    return Place(tagged.root / tagged.tags_source)


def _everywhere(tagged: TaggedSet) -> Iterator[Finding]:
    """Classes that no image, or hardly one, is known to be without."""
    absent_K, present_K = _absent_and_present(tagged)
    known = "known to be " if tagged.has_unknown() else ""
    never = [tagged.classes[k] for k in np.flatnonzero((absent_K == 0) & (present_K > 0)).tolist()]
    if never:
        what = f"no image of split '{tagged.split}' is {known}without {first_few(never, 5)}"
        mend = f"add images without {'it' if len(never) == 1 else 'each of them'}"
        if len(tagged.classes) == 1:
            mend += ", an empty label field each; or find the objects without tags: make-pseudo --method objects"
        why = "the classifier learns to answer yes to every image, no validation can tell, and maps need not show the"
        yield Finding("class-everywhere", _place(tagged), f"{what}: {why} object", mend)
    seldom = (absent_K > 0) & (absent_K < FEW_IMAGES) & (present_K >= FEW_IMAGES * absent_K)
    for k in np.flatnonzero(seldom).tolist():
        few = f"{counted(int(absent_K[k]), 'image')} of {len(tagged)} of split '{tagged.split}'"
        what = f"only {few} {'is' if absent_K[k] == 1 else 'are'} {known}without {tagged.classes[k]!r}"
        yield Finding("class-everywhere", _place(tagged), what, f"add images without {tagged.classes[k]!r}")


def _together(tagged: TaggedSet) -> Iterator[Finding]:
    """Pairs of classes of which one never occurs without the other."""
    both_KK = pairs_together((record.tags for record in tagged.records), len(tagged.classes))
    count_K = both_KK.diagonal()
    always_KK = (both_KK == count_K[:, None]) & ~np.eye(len(count_K), dtype=bool)  # the row never without the column
    always_KK &= (count_K < 0.9 * len(tagged))[None]  # of a class in nearly all images, _everywhere tells
    for a, b in zip(*np.nonzero(always_KK), strict=True):
        first, second, number = tagged.classes[a], tagged.classes[b], int(count_K[a])
        if always_KK[b, a]:
            if a < b and number >= FEW_IMAGES:
                what = f"{first!r} and {second!r} always come together ({counted(number, 'image')}): tags cannot tell"
                mend = f"add images with one of the two alone, or make one class of {first!r} and {second!r}"
                yield Finding("class-together", _place(tagged), f"{what} which pixels are whose", mend)
        elif number >= FEW_IMAGES:
            what = f"{first!r} never comes without {second!r} ({counted(number, 'image')}): its maps may show both"
            yield Finding("class-together", _place(tagged), what, f"add images of {first!r} without {second!r}")


def _few_images(tagged: TaggedSet) -> Iterator[Finding]:
    counts = tagged.images_by_class()
    few = [f"{name!r} {count}" for name, count in counts.items() if 0 < count < FEW_IMAGES]
    if few:
        which = "one class has" if len(few) == 1 else f"{len(few)} of {len(counts)} classes have"
        what = f"{which} fewer than {FEW_IMAGES} images in split '{tagged.split}': {first_few(few, 5)}"
        yield Finding("class-few", _place(tagged), what, "add images of it, or leave it out: --classes A,B,C")


def _small_set(tagged: TaggedSet, section: Optimisation) -> Iterator[Finding]:
    steps = steps_in_all(len(tagged), section)
    if steps < FEW_STEPS:
        what = f"{counted(len(tagged), 'image')} of split '{tagged.split}' are {steps} steps of"
        what += f" {section.batch_size} images in {section.epochs} epochs; fewer than {FEW_STEPS} teach little"
        enough = math.ceil(FEW_STEPS / _steps_of_epoch(len(tagged), section))
        yield Finding("set-small", _place(tagged), what, f"add images, or --epochs {enough}")
    elif 0 < len(tagged) < SMALL_SET:
        what = f"{counted(len(tagged), 'image')} of split '{tagged.split}' are few: a network learns them by heart"
        yield Finding("set-small", _place(tagged), what, "add images")
