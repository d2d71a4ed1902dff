"""Splits and samples have the shares of the classes of the whole; copies of one photo stay together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsss.data.facts import DIGEST_BYTES
from wsss.data.records import Record, Records
from wsss.data.subsets import choose, photos_of, stratify
from wsss.errors import UsageError


def alone(count: int) -> NDArray[np.int64]:
    return np.arange(count)


def random_tags(seed: int, count: int, classes: int) -> NDArray[np.bool_]:
    rates = np.random.default_rng(seed).uniform(0.05, 0.6, classes)
    tags: NDArray[np.bool_] = np.random.default_rng(seed + 1).random((count, classes)) < rates
    return tags


def test_by_hand() -> None:
    """Two rare images of a class and eight of none, in halves: one and four in each."""
    present_NK = np.zeros((10, 1), bool)
    present_NK[[3, 7]] = True
    part_N = stratify(present_NK, alone(10), (1, 1), seed=0)
    assert sorted(part_N[[3, 7]]) == [0, 1]
    assert np.bincount(part_N).tolist() == [5, 5]


@given(st.integers(0, 2**31), st.integers(1, 120), st.integers(1, 6), st.integers(1, 4))
def test_shares_of_classes(seed: int, count: int, classes: int, parts: int) -> None:
    """No part is off by more than a few images in any class, and every image has a part."""
    present_NK = random_tags(seed, count, classes)
    shares = np.random.default_rng(seed).integers(1, 5, parts)
    part_N = stratify(present_NK, alone(count), shares.tolist(), seed)
    assert (part_N == stratify(present_NK, alone(count), shares.tolist(), seed)).all()
    assert ((part_N >= 0) & (part_N < parts)).all()
    for part in range(parts):
        wanted_K = present_NK.sum(0) * shares[part] / shares.sum()
        assert (np.abs(present_NK[part_N == part].sum(0) - wanted_K) <= 1 + classes).all()


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 20))
def test_groups_are_never_divided(seed: int, count: int, groups: int) -> None:
    group_N = np.random.default_rng(seed).integers(0, groups, count) * 7 - 3
    part_N = stratify(random_tags(seed, count, 3), group_N, (4, 1), seed)
    for group in np.unique(group_N):
        assert len({*part_N[group_N == group].tolist()}) == 1


def test_better_than_chance() -> None:
    """Of 40 rare images in 1,000, a validation split of a fifth has 8; drawn at random it often has 4 or 12."""
    present_NK = np.zeros((1000, 3), bool)
    present_NK[:40, 0], present_NK[20:520, 1], present_NK[500:, 2] = True, True, True
    for seed in range(20):
        part_N = stratify(present_NK, alone(1000), (0.8, 0.2), seed)
        assert present_NK[part_N == 1].sum(0).tolist() == [8, 100, 100]
        assert abs((part_N == 1).sum() - 200) <= 8


def records(*names: str, digests: dict[str, str] | None = None) -> Records:
    return Records.of(
        Record(name=name, image=Path(f"/gone/{name}.jpg"), tags=(), digest=(digests or {}).get(name)) for name in names
    )


def test_copies_of_one_photo() -> None:
    names = ("a_jpg.rf.0123abc", "b", "a_jpg.rf.77ff", "c", "d.rf", "x/a_jpg.rf.0")
    assert photos_of(records(*names)).tolist() == [0, 1, 0, 3, 4, 5]


def test_copies_by_their_bytes_and_by_a_pattern() -> None:
    one, two = "11" * DIGEST_BYTES, "22" * DIGEST_BYTES
    digests = {"p1_a": one, "p2_a": two, "p3_a": one}
    some = records("p1_a", "p2_a", "p3_a", "p2_b", "q", digests=digests)
    assert photos_of(some).tolist() == [0, 1, 0, 3, 4]
    assert photos_of(some, re.compile("^(p[0-9])")).tolist() == [0, 1, 0, 1, 4]
    assert photos_of(some, re.compile("_[ab]")).tolist() == [0, 0, 0, 3, 4]
    with pytest.raises(UsageError, match="no name of an image matches, such as p1_a"):
        photos_of(some, re.compile("patient"))


@given(st.integers(0, 2**31), st.integers(0, 80), st.integers(1, 5), st.integers(1, 90))
def test_a_sample_has_so_many_images_and_every_class(seed: int, total: int, classes: int, count: int) -> None:
    present_NK = random_tags(seed, total, classes)
    chosen = choose(present_NK, count, seed)
    assert len(chosen) == len({*chosen.tolist()}) == min(count, total)
    assert (np.diff(chosen) > 0).all()
    if count >= classes:
        assert (present_NK[chosen].any(0) == present_NK.any(0)).all()
