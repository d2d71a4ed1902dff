"""Formats without annotation files of their own: class folders, names that end in tags, VOC's XML beside images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.findings import BadData
from wsss.data.masks import write_mask
from wsss.data.readers.registry import recognise
from wsss.errors import DataError


def photos(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 1)).save(root / file)
    return root


def tags(root: Path, split: str, reading: Reading | None = None) -> dict[str, list[str]]:
    tagged = open_data(root, split=split, reading=reading)
    return {record.name: [tagged.classes[tag] for tag in record.tags] for record in tagged.records}


def test_a_class_folder_may_hold_folders_and_background_is_no_class(tmp_path: Path) -> None:
    root = photos(tmp_path, "cat/a/1.png", "cat/b/1.png", "background/1.png")
    assert tags(root, "all") == {"cat/a/1": ["cat"], "cat/b/1": ["cat"], "background/1": []}


def test_images_straight_in_a_split_have_no_tag(tmp_path: Path) -> None:
    said: list[BadData] = []
    root = photos(tmp_path, "train/10/1.png", "train/9/2.png", "test/3.png")
    assert list_splits(root) == ("test", "train")
    assert open_data(root, split="train").classes == ("9", "10")
    assert len(open_data(root, split="test", note=said.append)) == 0
    assert [finding.kind for error in said for finding in error.findings] == ["image-unlabelled"]


@pytest.mark.parametrize(
    "files",
    [
        ("a.png", "cat/1.png", "dog/2.png"),  # photos beside folders of photos
        ("holiday/1.png",),
        ("train/1.png", "val/1.png"),
        ("images/1.png", "cat/1.png", "dog/1.png"),
        ("val/img/1.png", "val/mask/1.png"),
    ],
)
def test_other_folders_of_images_are_no_class_folders(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert recognise(photos(tmp_path, *files)) == {}


def test_annotation_files_keep_folders_from_being_classes(tmp_path: Path) -> None:
    root = photos(tmp_path, "cat/1.png", "dog/1.png")
    (root / "cat" / "1.json").write_text("{}")
    (root / "dog" / "1.json").write_text("{}")
    assert recognise(root) == {}


@pytest.mark.parametrize("end", ["[10]", "[1 0]", "[1, 0]", "[1_0]"])
def test_tags_stand_at_the_end_of_a_name(tmp_path: Path, end: str) -> None:
    root = photos(tmp_path, f"train/x{end}.png")
    assert tags(root, "train", Reading(classes=("a", "b"))) == {f"train/x{end}": ["a"]}


@pytest.mark.parametrize("file", ["x[d=2,x=0,y=512,w=512,h=512].png", "x[1].png", "x[10]y.png", "x[2 0].png"])
def test_other_brackets_are_no_tags(tmp_path: Path, file: str) -> None:
    assert "histology" not in recognise(photos(tmp_path, file))


def test_classes_of_digits_are_told(tmp_path: Path) -> None:
    root = photos(tmp_path, "train/x[1 0].png", "train/y[101].png")
    with pytest.raises(DataError, match="not of which classes") as caught:
        open_data(root, split="train")
    assert "--classes" in caught.value.fix
    with pytest.raises(DataError, match=r"another number of digits.*y\[101\]"):
        open_data(root, split="train", reading=Reading(classes=("a", "b")))


def test_the_offset_of_masks_holds_in_any_folder_of_masks(tmp_path: Path) -> None:
    root = photos(tmp_path, "images/x.png")
    (root / "tags.csv").write_text("image,labels\nx,a\n")
    write_mask(root / "masks" / "x.png", np.array([[0, 4, 255]], np.uint8))
    tagged = open_data(root, reading=Reading(mask_offset=1, mask_ignore=4))
    truth = tagged.truth(tagged.records[0])
    assert truth is not None
    assert truth.tolist() == [[1, 255, 255]]


def test_tags_of_the_masks_beside_come_only_when_asked(tmp_path: Path) -> None:
    root = photos(tmp_path, "train/x[10].png", "val/img/y.png")
    write_mask(root / "val" / "mask" / "y.png", np.array([[0, 1, 2]], np.uint8))
    reading = Reading(classes=("a", "b"), mask_offset=1, mask_ignore=2)
    assert tags(root, "val", reading) == {}
    assert tags(root, "val", reading.model_copy(update={"tags_from": "masks"})) == {"val/img/y": ["a", "b"]}


def test_an_image_without_its_xml_has_no_tags_and_an_xml_without_its_image_is_a_fault(tmp_path: Path) -> None:
    root = photos(tmp_path, "train/a.png", "train/b.png")
    (root / "train" / "a.xml").write_text("<annotation><object><name> cat</name></object></annotation>")
    assert tags(root, "train") == {"train/a": ["cat"]}
    (root / "train" / "c.xml").write_text("<annotation/>")
    with pytest.raises(DataError, match="train/c"):
        open_data(root, split="train")
    (root / "train" / "c.xml").write_text("<!DOCTYPE x><annotation/>")
    with pytest.raises(DataError, match="document type"):
        open_data(root, split="train")
