from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsss.data.facts import image_digest
from wsss.data.masks import write_mask
from wsss.data.records import MAX_NAMED, Record, Records, TaggedSet, counted, data_digest


def tagged(classes: tuple[str, ...], *tags: tuple[int, ...]) -> TaggedSet:
    records = tuple(Record(name=f"p{k}", image=Path(f"p{k}.jpg"), tags=one) for k, one in enumerate(tags))
    return TaggedSet(root=Path("photos"), split="train", classes=classes, records=records)


def test_classes_are_counted_in_their_order() -> None:
    some = tagged(("dog", "cat", "cow"), (0, 1), (1,), ())
    assert list(some.images_by_class().items()) == [("dog", 1), ("cat", 2), ("cow", 0)]


def test_a_summary_is_one_line() -> None:
    some = tagged(("dog", "cat", "cow", "horse person"), (0, 1), (1,), (3,), ())
    assert some.summary() == "train: 4 images, 4 classes: dog 1, cat 2, cow 0, 'horse person' 1; 1 image of no class"
    assert tagged(("dog",), (0,)).summary() == "train: 1 image, 1 class: dog 1"


def test_a_long_summary_is_cut() -> None:
    names = tuple(f"c{k:02}" for k in range(MAX_NAMED + 5))
    assert tagged(names[:MAX_NAMED], (0,)).summary().endswith("c23 0, c24 0")
    assert tagged(names, (0,)).summary().endswith("c23 0, c24 0 and 5 more")


def test_one_is_no_plural() -> None:
    assert [counted(number, "error") for number in (0, 1, 2)] == ["0 errors", "1 error", "2 errors"]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


def photos(count: int, **changes: Any) -> list[Record]:
    return [Record(name=f"s/p{k}", image=Path(f"photos/s/p{k}.jpg"), tags=(k % 3,), **changes) for k in range(count)]


def test_records_are_made_on_demand_and_equal_what_was_given() -> None:
    given = [*photos(3), replace(photos(4)[3], size=(4, 7), digest="0f" * 16, tags=())]
    some = TaggedSet(root=Path("photos"), split="all", classes=("a", "b", "c"), records=given)
    assert isinstance(some.records, Records)
    assert list(some.records) == given == [some.records[k] for k in range(-4, 0)]
    assert some.records == tuple(given)
    assert isinstance(some.records[1:3], Records)
    assert list(some.records[1:]) == given[1:]
    assert some.records[::-1][0] == given[-1]
    first, *rest = some.records
    assert [first, *rest] == given
    fewer = replace(some, records=some.records[:2])
    assert fewer == replace(some, records=tuple(given[:2])) != some
    assert len(replace(some, records=())) == 0
    with pytest.raises(IndexError):
        some.records[4]


@pytest.mark.parametrize(
    "paths", [["/a/x.jpg", "b/y.jpg"], ["a/x1.jpg", "a/x2.jpg"], ["x.jpg"], ["/x.jpg", "/y/z.jpg"]]
)
def test_images_may_lie_anywhere(paths: list[str]) -> None:
    records = [Record(name=str(k), image=Path(path), tags=()) for k, path in enumerate(paths)]
    assert [record.image for record in Records.of(records, Path("photos"))] == [Path(path) for path in paths]


def test_names_are_parts_of_paths_only_where_all_are() -> None:
    columns = Records.of(photos(3), Path("photos"))
    assert columns.names.blob is columns.paths.blob
    other = [*photos(2), Record(name="s/other", image=Path("photos/s/p2.jpg"), tags=())]
    assert [record.name for record in Records.of(other)] == ["s/p0", "s/p1", "s/other"]
    short = [*photos(2), Record(name="a much longer name", image=Path("photos/s/q"), tags=())]
    assert Records.of(short) == tuple(short)


def test_a_set_is_sent_to_a_process_as_arrays() -> None:
    some = TaggedSet(root=Path("photos"), split="all", classes=("a",), records=photos(10_000))
    sent = pickle.dumps(some)
    assert len(sent) < 10_000 * 70
    assert pickle.loads(sent) == some
    assert sent.count(b"wsss.data.records") < 5


def test_a_truth_is_the_mask_of_a_record(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "s" / "p1.png", np.array([[0, 2, 255]], np.uint8))
    some = TaggedSet(root=tmp_path, split="all", classes=("a",), records=photos(2), mask_folder=tmp_path / "masks")
    first, second = some.records
    assert (some.truth(first), some.has_truth(first), some.mask_path(first)) == (None, False, None)
    truth_HW = some.truth(second)
    assert truth_HW is not None
    assert truth_HW.tolist() == [[0, 2, 255]]
    assert some.has_masks()
    unmasked = replace(some, mask_folder=None)
    assert (unmasked.truth(second), unmasked.has_masks()) == (None, False)


def test_a_truth_need_not_be_a_file() -> None:
    class Polygons:
        def has(self, record: Record) -> bool:
            return record.name == "s/p1"

        def read(self, record: Record) -> NDArray[np.uint8] | None:
            return np.ones((2, 3), np.uint8) if self.has(record) else None

    some = TaggedSet(root=Path("photos"), split="all", classes=("a",), records=photos(2), annotations=Polygons())
    assert [some.truth(record) is not None for record in some.records] == [False, True]
    assert some.has_masks()
    assert some.mask_path(some.records[1]) is None


def test_the_digest_of_a_set_is_of_names_tags_and_bytes(tmp_path: Path) -> None:
    for k in range(2):
        (tmp_path / f"p{k}.bmp").write_bytes(bytes([k] * 9))
    records = [Record(name=f"p{k}", image=tmp_path / f"p{k}.bmp", tags=(0,)) for k in range(2)]
    some = TaggedSet(root=tmp_path, split="all", classes=("a",), records=records)
    scanned = replace(some, records=[replace(one, digest=image_digest(one.read()), size=(1, 1)) for one in records])
    assert data_digest(some) == data_digest(scanned)
    others = [
        replace(some, records=records[::-1]),
        replace(some, records=[replace(records[0], tags=()), records[1]]),
        replace(some, records=[replace(records[0], name="q"), records[1]]),
    ]
    before = data_digest(some)
    (tmp_path / "p1.bmp").write_bytes(bytes([7] * 9))
    assert len({before, data_digest(some), *map(data_digest, others)}) == 5
