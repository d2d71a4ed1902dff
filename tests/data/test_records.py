from __future__ import annotations

from pathlib import Path

from wsss.data.records import MAX_NAMED, Record, TaggedSet, counted


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
