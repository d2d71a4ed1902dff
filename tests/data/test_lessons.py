"""What tags cannot teach is said by `wsss data check` and at the start of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.config import ClassifySection, Config, DataSection, Optimisation, SegmentSection
from wsss.data.check import inspect_data
from wsss.data.findings import Finding
from wsss.data.lessons import epochs_of, lessons, steps_in_all, worst_lesson
from wsss.data.masks import write_mask
from wsss.data.records import Record, TaggedSet
from wsss.data.splits import open_training
from wsss.reporting import Silent

ENOUGH = ClassifySection(epochs=10_000)


def tagged(*tags: tuple[int, ...], classes: Sequence[str] = ("cat", "dog", "cow")) -> TaggedSet:
    """A set of these tags whose images do not exist."""
    records = [Record(name=f"p{n}", image=Path(f"/gone/p{n}.jpg"), tags=one) for n, one in enumerate(tags)]
    return TaggedSet(root=Path("/gone"), split="train", classes=tuple(classes), records=records, tags_source="tags.csv")


def found(one: TaggedSet, section: ClassifySection = ENOUGH) -> dict[str, list[Finding]]:
    by_kind: dict[str, list[Finding]] = {}
    for finding in lessons(one, section):
        by_kind.setdefault(finding.kind, []).append(finding)
    return by_kind


def test_nothing_is_said_of_a_set_that_teaches() -> None:
    assert found(tagged(*[(0,), (1,), (2,), (0, 1), ()] * 10)) == {}


def test_a_class_in_every_image() -> None:
    (finding,) = found(tagged(*[(0,), (0, 1), (0, 2)] * 10))["class-everywhere"]
    assert finding.what.startswith("no image of split 'train' is without cat: the classifier learns to answer yes")
    assert (finding.where, finding.mend) == ("/gone/tags.csv", "add images without it")


def test_a_single_class_is_offered_what_works() -> None:
    (finding,) = found(tagged(*[(0,)] * 20, classes=["cat"]))["class-everywhere"]
    assert "add images without it" in finding.mend
    assert "--method objects" in finding.mend


def test_hardly_an_image_is_without_a_class() -> None:
    (finding,) = found(tagged(*[(0,), (0, 1), (0, 2)] * 10, (1,)))["class-everywhere"]
    assert finding.what == "only 1 image of 31 of split 'train' is without 'cat'"


def test_an_unknown_tag_is_no_absent_one() -> None:
    records = [Record(name=f"p{n}", image=Path(f"/gone/p{n}.jpg"), tags=(0,), unknown=(1,)) for n in range(12)]
    other = Record(name="q", image=Path("/gone/q.jpg"), tags=(1,), unknown=(0,))
    one = TaggedSet(root=Path("/gone"), split="train", classes=("cat", "dog"), records=[*records, other])
    (finding,) = found(one)["class-everywhere"]
    assert finding.what.startswith("no image of split 'train' is known to be without cat, dog")


@pytest.mark.parametrize("number", [9, 10])
def test_classes_that_always_come_together(number: int) -> None:
    one = tagged(*[(0, 1)] * number, *[(2,)] * 50)
    if number < 10:  # they are few, which is said
        assert [*found(one)] == ["class-few"]
        return
    (finding,) = found(one)["class-together"]
    assert finding.what.startswith("'cat' and 'dog' always come together (10 images)")
    assert finding.mend == "add images with one of the two alone, or make one class of 'cat' and 'dog'"


def test_a_class_that_never_comes_alone() -> None:
    (finding,) = found(tagged(*[(0, 1)] * 10, *[(1,)] * 5, *[(2,)] * 20))["class-together"]
    assert finding.what.startswith("'cat' never comes without 'dog' (10 images)")


def test_classes_of_few_images() -> None:
    (finding,) = found(tagged(*[(0,)] * 3, *[(1,)] * 20))["class-few"]
    assert finding.what == "one class has fewer than 10 images in split 'train': 'cat' 3"


def test_a_set_too_small_for_its_steps() -> None:
    small = tagged(*[(0,), (1,), (2,)] * 20)
    (finding,) = found(small, ClassifySection(epochs=10, batch_size=16))["set-small"]
    assert finding.what.startswith("60 images of split 'train' are 30 steps of 16 images in 10 epochs")
    assert finding.mend == "add images, or --epochs 67"
    assert steps_in_all(60, ClassifySection(epochs=67, batch_size=16)) >= 200
    assert "set-small" not in found(small, ClassifySection(epochs=67, batch_size=16))
    assert "set-small" not in found(small)


def test_a_set_of_few_images_is_small_whatever_its_steps() -> None:
    (finding,) = found(tagged(*[(0,), (1,)] * 24))["set-small"]
    assert finding.what == "48 images of split 'train' are few: a network learns them by heart"
    assert "set-small" not in found(tagged(*[(0,), (1,)] * 25))


@pytest.mark.parametrize(
    ("images", "section", "epochs"),
    [
        (3131, ClassifySection(), 4),
        (3131, SegmentSection(), 2),
        (200, ClassifySection(), 17),
        (10, ClassifySection(), 200),
        (200, ClassifySection(epochs=3), 3),
        (200, SegmentSection(batch_size=4), 4),
    ],
)
def test_epochs_make_enough_steps(images: int, section: Optimisation, epochs: int) -> None:
    assert epochs_of(images, section) == epochs
    assert steps_in_all(images, section) == epochs * max(1, images // section.batch_size)


def test_the_worst_is_first() -> None:
    everywhere = tagged(*[(0,), (0, 1), (0, 2)] * 3)
    worst = worst_lesson(everywhere)
    assert worst is not None
    assert worst.kind == "class-everywhere" == next(lessons(everywhere)).kind
    assert worst_lesson(tagged(*[(0,), (1,), (2,)] * 10)) is None


def write_set(root: Path, labels: Sequence[str], split: str = "train") -> None:
    root.mkdir()
    lines = []
    for number, label in enumerate(labels):
        noise_HW3 = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise_HW3).save(root / f"p{number}.png")
        lines.append(f"p{number},{label},{split}\n")
    (root / "tags.csv").write_text("image,labels,split\n" + "".join(lines))


class Remarks(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_training_says_the_worst_line(tmp_path: Path) -> None:
    write_set(tmp_path / "photos", ["cat"] * 4)
    remarks = Remarks()
    open_training(Config(data=DataSection(root=tmp_path / "photos")), remarks)
    assert [said for said in remarks.said if said.startswith("no image of split 'train' is without cat")]
    assert "wsss data check" in remarks.said[1]


def test_a_validation_split_alone_is_not_trained_on(tmp_path: Path) -> None:
    write_set(tmp_path / "photos", ["cat"] * 4, split="val")
    assert inspect_data(tmp_path / "photos", Silent()).lessons == ()


SHIFTED = {"cat": 0, "cow": 1, "dog": 2}


@pytest.mark.parametrize(
    ("indices", "what", "mend"),
    [
        (
            {"cat": 2, "dog": 1},
            "masks hold 2 where the tags say 'cat' (1), 1 where the tags say 'dog' (2)",
            "classes.txt",
        ),
        ({"cat": 1, "dog": 1}, None, ""),  # half of the tags agree; each other mask is told by itself
        ({"cat": 9, "dog": 9}, "all masks hold 0 and 9 alone", "index of its class"),
        (SHIFTED, "masks hold 0 where the tags say 'cat' (1), 1 where the tags say 'cow' (2)", "--mask-offset 1"),
        ({"cat": 1, "dog": 2}, None, ""),
    ],
)
def test_masks_that_count_otherwise(tmp_path: Path, indices: dict[str, int], what: str | None, mend: str) -> None:
    root = tmp_path / "photos"
    write_set(root, labels := [*indices] * 6)
    for number, label in enumerate(labels):
        mask_HW = np.full((20, 24), indices[label], np.uint8)
        mask_HW[:5] = indices[label] if indices is SHIFTED else 0
        write_mask(root / "masks" / f"p{number}.png", mask_HW)
    orders = [one for one in inspect_data(root, Silent()).findings if one.kind == "mask-order"]
    assert len(orders) == (what is not None)
    assert all(what in one.what and mend in one.mend for one in orders if what is not None)


def test_odd_labels_are_told_in_every_format(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(33):
        name = "hrose" if number == 0 else "horse" if number < 22 else "cow"
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        noise_HW3 = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise_HW3).save(folder / f"p{number}.png")
    (finding,) = (one for one in inspect_data(root, Silent()).findings if one.kind == "class-alike")
    assert finding.what == "'hrose' (1 image) or 'horse' (21)?"


def test_numbered_classes_of_a_table_are_sorted_as_text(tmp_path: Path) -> None:
    write_set(tmp_path / "photos", ["1", "10", "2"] * 4)
    (finding,) = (one for one in inspect_data(tmp_path / "photos", Silent()).findings if one.kind == "class-order")
    assert finding.what.startswith("'10' comes before '2'")
