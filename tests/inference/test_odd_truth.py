"""Scores whose masks and tags say different things."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.data.masks import IGNORE_INDEX, write_mask
from wsss.data.records import Record, TaggedSet
from wsss.inference.evaluate import evaluate_labels


def remarks(root: Path, *images: tuple[list[int], tuple[int, ...]]) -> tuple[str, ...]:
    """What is said of a perfect score of masks of these pixels, and tags."""
    for number, (pixels, _) in enumerate(images):
        write_mask(root / "masks" / f"{number}.png", np.array([pixels], np.uint8))
    records = [Record(name=str(k), image=root / f"{k}.jpg", tags=tags) for k, (_, tags) in enumerate(images)]
    tagged = TaggedSet(
        root=root, split="val", classes=("cat", "dog"), records=tuple(records), mask_folder=root / "masks"
    )
    return evaluate_labels(root / "masks", tagged).remarks


def test_nothing_is_said_where_masks_hold_the_tags(tmp_path: Path) -> None:
    assert remarks(tmp_path, ([0, 1], (0,)), ([0, 2], (1,)), ([0, 0], ())) == ()


def test_masks_of_0_and_255_are_no_score(tmp_path: Path) -> None:
    (said,) = remarks(tmp_path, ([0, IGNORE_INDEX], (0,)), ([0, IGNORE_INDEX], (1,)))
    assert said.startswith("no mask holds a pixel of any class, but tags name 'cat', 'dog'; wsss data check ")


def test_another_index_than_that_of_the_tags(tmp_path: Path) -> None:
    first, second = remarks(tmp_path, ([0, 2], (0,)), ([0, 2], (0,)))
    assert first.startswith("no mask holds a pixel of 'cat', but tags name 'cat'")
    assert second.startswith("masks hold 'dog', but no tag of these images names it")


def test_without_tags_nothing_can_be_compared(tmp_path: Path) -> None:
    assert remarks(tmp_path, ([0, 2], ()), ([0, 1], ())) == ()
