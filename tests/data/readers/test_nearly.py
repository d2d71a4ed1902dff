"""Folders that lack one thing of a format: it is named, with what mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from wsss.config import Reading
from wsss.data.check import inspect_data
from wsss.data.dataset import open_data
from wsss.data.findings import telling
from wsss.errors import DataError
from wsss.inference.evaluate import evaluate_labels
from wsss.reporting import Silent


def photos(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (30 * number, 90, 10)).save(path)


def coco(root: Path, **change: object) -> Path:
    content = {
        "images": [{"id": 0, "file_name": "0.jpg", "width": 8, "height": 6}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]], "bbox": [1, 1, 4, 4]}
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        **change,
    }
    photos(root / "0.jpg")
    (root / "instances.json").write_text(
        json.dumps({key: value for key, value in content.items() if value is not None})
    )
    return root


@pytest.mark.parametrize("missing", ["images", "categories"])
def test_a_coco_file_without_a_list(tmp_path: Path, missing: str) -> None:
    with pytest.raises(DataError, match=f"has annotations as COCO files do, but no list of {missing}"):
        open_data(coco(tmp_path, **{missing: None}))


def test_coco_results_are_no_data_set(tmp_path: Path) -> None:
    root = coco(tmp_path)
    (root / "instances.json").write_text(json.dumps([{"image_id": 0, "category_id": 1, "score": 0.9}]))
    with pytest.raises(DataError, match="a list of COCO results"):
        open_data(root)


@pytest.mark.parametrize("form", [str, float, int])
def test_ids_are_one_however_they_are_written(tmp_path: Path, form: type) -> None:
    shape = [[1, 1, 5, 1, 5, 5]]
    annotations = [{"id": 1, "image_id": form(0), "category_id": form(1), "segmentation": shape}]
    tagged = open_data(coco(tmp_path, annotations=annotations))
    assert [tagged.classes[tag] for tag in tagged.records[0].tags] == ["cat"]


@pytest.mark.parametrize(
    ("segmentation", "kind", "what"),
    [
        ([[1, 1, 5]], "shape-unreadable", "it needs pairs"),
        ([[1, 1, 5, 1, float("nan"), 5]], "shape-unreadable", "no number"),
        ({"size": [3, 3], "counts": [9]}, "shape-unreadable", "run lengths of size"),
        ([[0.1, 0.1, 0.4, 0.1, 0.4, 0.4]], "mask-tags", "no pixel of its image's tags 'cat'"),
        ([[50, 50, 60, 50, 60, 60]], "mask-tags", "no pixel of its image's tags 'cat'"),
    ],
)
def test_outlines_are_examined(tmp_path: Path, segmentation: object, kind: str, what: str) -> None:
    annotations = [{"id": 1, "image_id": 0, "category_id": 1, "segmentation": segmentation}]
    found = inspect_data(coco(tmp_path, annotations=annotations), Silent()).findings
    assert [one.what for one in found if one.kind == kind and what in one.what]
    assert not [one for one in inspect_data(tmp_path, Silent(), masks=False).findings if one.kind == kind]


def test_another_size_in_the_annotations_is_found(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "0.jpg", "width": 6, "height": 8}]
    found = inspect_data(coco(tmp_path, images=images), Silent()).findings
    assert [one for one in found if one.kind == "shape-size"]


@pytest.mark.parametrize("stray", ["notes.csv", "cover.jpg"])
def test_class_folders_with_a_file_beside_them(tmp_path: Path, stray: str) -> None:
    photos(*(tmp_path / folder / "0.jpg" for folder in ("cat", "dog")))
    photos(tmp_path / stray) if stray.endswith("jpg") else (tmp_path / stray).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=rf"2 folders of images \(cat, dog\) that may be classes, but {stray}") as error:
        open_data(tmp_path)
    assert error.value.fix.startswith("--format class-folders")
    said: list[str] = []
    tagged = open_data(tmp_path, reading=Reading(format="class-folders"), note=telling(said.append))
    assert tagged.classes == ("cat", "dog")
    assert any("no annotation" in text for text in said) == stray.endswith("jpg")


def test_yolo_says_another_number_of_classes_and_words_that_yaml_reads_otherwise(tmp_path: Path) -> None:
    photos(tmp_path / "images/train/0.jpg")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/0.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    (tmp_path / "data.yaml").write_text("nc: 3\nnames: [cat, dog]\ntrain: images/train\n")
    said: list[str] = []
    open_data(tmp_path, note=telling(said.append))
    assert any("states 3 classes (nc), but names 2" in text for text in said)
    (tmp_path / "data.yaml").write_text("names: [yes, no]\ntrain: images/train\n")
    with pytest.raises(DataError, match="YAML reads yes, no, on and off so"):
        open_data(tmp_path)


def test_class_folders_one_folder_deeper(tmp_path: Path) -> None:
    photos(*(tmp_path / "images" / folder / "0.jpg" for folder in ("cat", "dog")))
    with pytest.raises(DataError, match="folders in images/ that may be classes") as error:
        open_data(tmp_path)
    assert error.value.fix == f"give {tmp_path / 'images'} instead"


def test_folders_of_other_names_are_classes_where_that_is_asked_for(tmp_path: Path) -> None:
    photos(*(tmp_path / folder / "0.jpg" for folder in ("images", "labels")))
    with pytest.raises(DataError, match="no data set there"):
        open_data(tmp_path)
    assert open_data(tmp_path, reading=Reading(format="class-folders")).classes == ("images", "labels")


@pytest.mark.parametrize(("name", "fix"), [("tags.csv", "--tags"), ("photos.zip", "unpack it")])
def test_a_file_in_place_of_a_folder(tmp_path: Path, name: str, fix: str) -> None:
    (tmp_path / name).write_text("image,labels\n")
    with pytest.raises(DataError, match="a file, where a data folder is expected") as error:
        open_data(tmp_path / name)
    assert fix in error.value.fix


def test_boxes_alone_are_named_where_nothing_can_be_scored(tmp_path: Path) -> None:
    annotations = [{"id": 1, "image_id": 0, "category_id": 1, "segmentation": [], "bbox": [1, 1, 4, 4]}]
    tagged = open_data(coco(tmp_path, annotations=annotations))
    with pytest.raises(DataError, match="boxes and other annotations without an outline make no mask"):
        evaluate_labels(tmp_path, tagged)
