"""Divide images into parts that have the same share of every class.

Iterative stratification for several labels an image (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011), of groups of
images that may not be divided, such as copies of one photo.

Shape suffixes: N images, G groups, K classes, P parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsss.data.records import UNKNOWN_DIGEST, Records
from wsss.errors import UsageError

AUGMENTED = re.compile(r"^(?P<photo>.+)\.rf\.[0-9A-Za-z]+$")
"""Names that Roboflow gives to the augmented copies of a photo."""


def evenly(records: Records, count: int) -> Records:
    """So many records at equal distances; all where there are fewer, or where the count is 0."""
    if count == 0 or count >= len(records):
        return records
    return records.take(np.linspace(0, len(records) - 1, count).round().astype(np.int64))


def stratify(
    present_NK: NDArray[np.bool_], group_N: NDArray[np.int64], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """The part of each image, (N,) from 0 to P - 1.

    The class that the fewest open images have is dealt first: each group with it goes to the part that misses most of
    this class, of these to the one that misses most images. Images of no class fill up the parts last.

    Args:
        present_NK: the tags.
        group_N: a number for each image; images of one number stay in one part.
        shares: positive weights of the P parts.
        seed: of the order of the groups, and of the choice between parts that are equally good.
    """
    random = np.random.default_rng([seed, 11])
    _, group_N = np.unique(group_N, return_inverse=True)
    groups = int(group_N.max(initial=-1)) + 1
    count_GK = np.zeros((groups, present_NK.shape[1] + 1))
    np.add.at(count_GK, group_N, np.column_stack([present_NK, ~present_NK.any(1)]))  # the last column: of no class
    size_G = np.bincount(group_N, minlength=groups).astype(float)
    share_P = np.array(shares) / sum(shares)
    missing_PK = share_P[:, None] * count_GK.sum(0)
    missing_P = share_P * size_G.sum()
    part_G = np.full(groups, -1)
    order = random.permutation(groups)
    order = order[np.argsort(-size_G[order], kind="stable")]  # large groups first, small ones even out
    while (part_G < 0).any():
        left_K = count_GK[part_G < 0].sum(0)
        label = int(np.argmin(np.where(left_K > 0, left_K, np.inf)))
        for group in order[(part_G[order] < 0) & (count_GK[order, label] > 0)]:
            best = np.lexsort((random.random(len(share_P)), -missing_P, -missing_PK[:, label]))[0]
            part_G[group] = best
            missing_PK[best] -= count_GK[group]
            missing_P[best] -= size_G[group]
    return part_G[group_N]


def photos_of(records: Records, together: re.Pattern[str] | None = None) -> NDArray[np.int64]:
    """A number for each image, (N,), equal for copies of one photo.

    Copies have the same bytes (where the images were scanned), or are Roboflow's augmented copies of one name.

    Args:
        records: the images.
        together: images whose names have the same match stay together too, such as those of one patient; its first
            group counts, if it has one.

    Raises:
        UsageError: no name matches ``together``.
    """
    first = list(range(len(records)))  # a forest: each image points to an earlier one of its photo, or to itself

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = index = first[first[index]]
        return index

    seen: dict[tuple[str, str | bytes], int] = {}
    matched = False
    for index, name in enumerate(records.names):
        keys: list[tuple[str, str | bytes]] = []
        if (digest := records.digest_ND[index].tobytes()) != UNKNOWN_DIGEST:
            keys.append(("bytes", digest))
        if copy := AUGMENTED.match(name):
            keys.append(("photo", copy["photo"]))
        if together is not None and (match := together.search(name)):
            matched = True
            keys.append(("together", match[1] if together.groups and match[1] is not None else match[0]))
        for key in keys:
            one, other = sorted((root(seen.setdefault(key, index)), root(index)))
            first[other] = one
    if together is not None and not matched and len(records):
        raise UsageError(
            f"--together {together.pattern}: no name of an image matches, such as {records.names[0]}",
            "--together '^([^_]+)'  # the part before the first _",
        )
    return np.array([root(index) for index in range(len(records))], np.int64)


def choose(present_NK: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.int64]:
    """Positions of ``count`` images, ascending, with the same share of every class; all where there are fewer.

    Each class that occurs has at least one image where ``count`` allows it.
    """
    total = len(present_NK)
    if count >= total:
        return np.arange(total)
    random = np.random.default_rng([seed, 12])
    chosen_N = np.zeros(total, bool)
    for label in np.argsort(present_NK.sum(0), kind="stable"):  # the rarest class first
        has_N = present_NK[:, label]
        if has_N.any() and not (has_N & chosen_N).any() and chosen_N.sum() < count:
            chosen_N[random.choice(np.flatnonzero(has_N))] = True
    open_M = np.flatnonzero(~chosen_N)
    missing = count - int(chosen_N.sum())
    if missing:
        part_M = stratify(present_NK[open_M], np.arange(len(open_M)), (missing, len(open_M) - missing), seed)
        first = np.argsort(part_M + random.random(len(open_M)) / 2)  # counts of classes were rounded up or down
        chosen_N[open_M[first[:missing]]] = True
    return np.flatnonzero(chosen_N)
