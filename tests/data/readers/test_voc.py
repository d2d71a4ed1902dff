from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.readers.annotations import xml_labels
from wsss.data.readers.voc import VOC_CLASSES
from wsss.data.records import TaggedSet
from wsss.errors import DataError, UsageError


def tags(tagged: TaggedSet) -> list[tuple[str, list[str]]]:
    return [(record.name, [tagged.classes[tag] for tag in record.tags]) for record in tagged.records]


def annotate(root: Path, name: str, *labels: str) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    things = "".join(f"<object><name> {label} </name><part><name>head</name></part></object>" for label in labels)
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{things}</annotation>")


def write_list(root: Path, split: str, content: str, folder: str = "Segmentation") -> None:
    path = root / "ImageSets" / folder / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_a_split_in_the_order_of_its_list(voc_root: Path) -> None:
    tagged = open_data(voc_root, split="train")
    assert tagged.classes == ("sheep", "cat", "dog")
    assert [(record.name, record.tags) for record in tagged.records] == [("n3", ()), ("n1", (1, 2))]
    assert tagged.records[0].image == voc_root / "JPEGImages" / "n3.jpg"
    assert tagged.mask_path(tagged.records[1]) == voc_root / "SegmentationClass" / "n1.png"


def test_no_mask_is_needed(voc_root: Path) -> None:
    with_masks = open_data(voc_root, split="train")
    shutil.rmtree(voc_root / "SegmentationClass")
    without = open_data(voc_root, split="train")
    assert without.records == with_masks.records
    assert without.mask_folder is None


def test_no_mask_is_opened(voc_root: Path) -> None:
    for mask in (voc_root / "SegmentationClass").iterdir():
        mask.write_bytes(b"no mask")
    assert len(open_data(voc_root, split="train")) == 2


def test_the_augmented_masks_come_first(voc_root: Path) -> None:
    (voc_root / "SegmentationClassAug").mkdir()
    assert open_data(voc_root, split="val").mask_folder == voc_root / "SegmentationClassAug"


def test_splits_are_the_lists_of_the_first_folder(voc_root: Path) -> None:
    write_list(voc_root, "trainval", "n1\n", folder="Main")
    assert list_splits(voc_root) == ("train", "val")


def test_lists_of_one_class_are_no_splits(voc_root: Path) -> None:
    shutil.rmtree(voc_root / "ImageSets" / "Segmentation")
    write_list(voc_root, "train", "n1\n", folder="Main")
    write_list(voc_root, "cat_train", "n1  1\nn2 -1\n", folder="Main")
    assert list_splits(voc_root) == ("train",)
    assert len(open_data(voc_root)) == 1


def test_lists_of_pairs_name_the_image_first(voc_root: Path) -> None:
    write_list(
        voc_root,
        "pairs",
        "/JPEGImages/n2.jpg /SegmentationClassAug/n2.png\r\n\r\nJPEGImages/n1.jpg masks/n1.png\r\n",
    )
    assert [record.name for record in open_data(voc_root, split="pairs").records] == ["n2", "n1"]


def test_names_may_hold_spaces(voc_root: Path) -> None:
    (voc_root / "JPEGImages" / "n1.jpg").rename(voc_root / "JPEGImages" / "my cat 1.jpg")
    write_list(voc_root, "mine", "my cat 1\n")
    (voc_root / "tags.csv").write_text("image,labels\nmy cat 1.jpg,cat\n")
    assert tags(open_data(voc_root, split="mine")) == [("my cat 1", ["cat"])]


def test_classes_of_the_table_without_a_class_file(voc_root: Path) -> None:
    (voc_root / "classes.txt").unlink()
    tagged = open_data(voc_root, split="val")
    assert tagged.classes == ("cat", "dog", "sheep")  # of all lines, so that splits agree
    assert tags(tagged) == [("n2", ["cat"])]


def test_xml_annotations(voc_root: Path) -> None:
    for name in ("tags.csv", "classes.txt"):
        (voc_root / name).unlink()
    annotate(voc_root, "n1", "person", "dog", "person")
    annotate(voc_root, "n3")
    tagged = open_data(voc_root, split="train")
    assert tagged.classes == VOC_CLASSES
    assert tags(tagged) == [("n3", []), ("n1", ["dog", "person"])]
    with pytest.raises(DataError, match=r"Annotations: no tags for 1 images \(n2\)"):
        open_data(voc_root, split="val")


def test_the_table_goes_before_xml_unless_asked(voc_root: Path) -> None:
    annotate(voc_root, "n2", "sheep")
    assert tags(open_data(voc_root, split="val")) == [("n2", ["cat"])]
    assert tags(open_data(voc_root, split="val", reading=Reading(tags_from="xml"))) == [("n2", ["sheep"])]


def test_tags_from_masks_only_where_asked(voc_root: Path) -> None:
    tagged = open_data(voc_root, split="val", reading=Reading(tags_from="masks"))
    assert tags(tagged) == [("n2", ["sheep", "cat"])]
    with pytest.raises(DataError, match=r"SegmentationClass: no tags for 1 images \(n3\)"):
        open_data(voc_root, split="train", reading=Reading(tags_from="masks"))
    (voc_root / "tags.csv").unlink()
    with pytest.raises(DataError, match=r"no tags: looked for tags\.csv"):
        open_data(voc_root, split="val")
    shutil.rmtree(voc_root / "SegmentationClass")
    with pytest.raises(DataError, match="there is no SegmentationClassAug or SegmentationClass"):
        open_data(voc_root, split="val", reading=Reading(tags_from="masks"))


def test_masks_keep_their_indices_under_the_classes_of_a_checkpoint(voc_root: Path) -> None:
    shutil.rmtree(voc_root / "SegmentationClass")
    (voc_root / "SegmentationClass").mkdir()
    (voc_root / "classes.txt").unlink()
    cat, dog = VOC_CLASSES.index("cat") + 1, VOC_CLASSES.index("dog") + 1
    Image.fromarray(np.array([[cat, dog]], dtype=np.uint8)).save(voc_root / "SegmentationClass" / "n2.png")
    tagged = open_data(voc_root, split="val", reading=Reading(tags_from="masks"), classes=["dog", "cat"])
    assert tags(tagged) == [("n2", ["dog", "cat"])]


def test_a_mask_beyond_the_classes(voc_root: Path) -> None:
    (voc_root / "classes.txt").write_text("sheep\n")
    with pytest.raises(DataError, match=r"n2.png: class index 2, but there are 1 classes"):
        open_data(voc_root, split="val", reading=Reading(tags_from="masks"))


def test_voc_has_twenty_classes_in_the_order_of_its_masks() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert VOC_CLASSES[14] == "person"


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><object>",
        "",
        '<!DOCTYPE a [<!ENTITY x "dog">]><annotation><object><name>&x;</name></object></annotation>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
    ],
)
def test_annotations_that_are_refused(tmp_path: Path, content: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "a.xml").write_text(content, encoding=encoding)
        with pytest.raises(DataError, match=r"a\.xml: unreadable annotation"):
            xml_labels(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the split is empty"),
        ("\n \n", "the split is empty"),
        ("n1\nn2\nn1\n", "line 3: 'n1' is listed before, at line 1"),
        ("n1\nm1\nm2\nm3\nm4\n", r"4 listed images are not in .*JPEGImages \(m1, m2, m3, \.\.\.\)"),
        ("../secret\n", "line 1: '../secret' leaves the data folder"),
    ],
)
def test_lists_that_are_refused(voc_root: Path, content: str, problem: str) -> None:
    write_list(voc_root, "train", content)
    with pytest.raises(DataError, match=problem) as caught:
        open_data(voc_root, split="train")
    assert "train.txt" in caught.value.problem


def test_images_without_a_line_in_the_table(voc_root: Path) -> None:
    (voc_root / "tags.csv").write_text("image,labels\nn3,\nn2,cat\n")
    with pytest.raises(DataError, match=r"tags\.csv: no tags for 1 images \(n1\)"):
        open_data(voc_root, split="train")


def test_an_unknown_split_names_those_there_are(voc_root: Path) -> None:
    with pytest.raises(UsageError, match="no split 'test'; there are train, val"):
        open_data(voc_root, split="test")
    with pytest.raises(UsageError, match=r"which split\?; there are train, val"):
        open_data(voc_root)


def test_no_split_list(voc_root: Path) -> None:
    shutil.rmtree(voc_root / "ImageSets" / "Segmentation")
    with pytest.raises(DataError, match="no split list in Segmentation or Main"):
        list_splits(voc_root)


def test_two_sources_of_tags_at_once(voc_root: Path) -> None:
    with pytest.raises(UsageError, match="at once"):
        open_data(voc_root, split="val", reading=Reading(tags=voc_root / "tags.csv", tags_from="xml"))


def test_a_test_split_has_no_tags_and_needs_none(voc_root: Path) -> None:
    annotate(voc_root, "n1", "cat")
    (voc_root / "tags.csv").unlink()
    write_list(voc_root, "test", "n1\nn2\n")
    (voc_root / "classes.txt").write_text("sheep\ncat\ndog\n")
    with pytest.raises(DataError, match=r"Annotations: no tags for 1 images \(n2\)"):
        open_data(voc_root, split="test")
    tagged = open_data(voc_root, split="test", need_tags=False)
    assert tags(tagged) == [("n1", ["cat"]), ("n2", [])]
    shutil.rmtree(voc_root / "Annotations")
    with pytest.raises(DataError, match="no tags: looked for"):
        open_data(voc_root, split="test")
    tagged = open_data(voc_root, split="test", need_tags=False)
    assert tags(tagged) == [("n1", []), ("n2", [])]
    assert tagged.classes == ("sheep", "cat", "dog")
