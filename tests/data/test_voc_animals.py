"""The readers on real photographs: the animals and persons of PASCAL VOC 2012."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.images import image_size, read_image
from wsss.data.index import keep_readable

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("WSSS_VOC_ANIMALS" not in os.environ, reason="WSSS_VOC_ANIMALS names no data folder"),
]


@pytest.fixture
def root() -> Path:
    return Path(os.environ["WSSS_VOC_ANIMALS"])


def test_splits_and_classes(root: Path) -> None:
    assert list_splits(root) == ("train", "train_aug", "val")
    for split, count in {"train_aug": 3131, "train": 437, "val": 223}.items():
        tagged = open_data(root, split=split)
        assert len(tagged) == count
        assert tagged.classes == ("cat", "cow", "dog", "horse", "person", "sheep")


def test_tag_counts_equal_the_table(root: Path) -> None:
    lines = [line.split(",") for line in (root / "tags.csv").read_text().splitlines()[1:]]
    expected = Counter(label for _, labels in lines for label in labels.split())
    counts: Counter[str] = Counter()
    for split in ("train_aug", "val"):  # together they are the whole table, train being part of train_aug
        tagged = open_data(root, split=split)
        counts.update(tagged.classes[tag] for record in tagged.records for tag in record.tags)
    assert counts == expected
    assert sum(counts.values()) > len(lines)


def test_masks_agree_with_the_tags(root: Path) -> None:
    from_file, from_masks = (
        open_data(root, split="val", reading=Reading(tags_from=source)) for source in ("file", "masks")
    )
    assert from_file.records == from_masks.records


def test_images_are_readable_and_their_sizes_agree(root: Path) -> None:
    tagged = open_data(root, split="val")
    kept, broken = keep_readable(tagged)
    assert broken == ()
    assert [record.name for record in kept.records] == [record.name for record in tagged.records]
    for record in kept.records[::10]:
        assert record.size == image_size(record.image) == read_image(record.image).shape[:2]
