"""What is written of a data set and of a folder of label maps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.dataset import open_data
from wsss.data.masks import write_mask
from wsss.data.writers.registry import WRITERS
from wsss.errors import DataError, UsageError
from wsss.files import whole_folder
from wsss.outputs.exports import export_data, export_labels, is_label_folder, write_export


def photos(root: Path, rows: Mapping[str, str]) -> Path:
    """A folder data set: image -> the rest of its line."""
    (root / "images").mkdir(parents=True)
    for name in rows:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 1)).save(root / "images" / name)
    lines = [f"{name},{rest}\n" for name, rest in rows.items()]
    (root / "tags.csv").write_text("image,labels,split\n" + "".join(lines))
    return root


def label_folder(root: Path, image: Path) -> Path:
    write_mask(root / "labels" / "a.png", np.array([[0, 2]], np.uint8))
    (root / "manifest.json").write_text(json.dumps({"wsss": "1", "kind": "labels", "classes": ["cat", "tabby cat"]}))
    entry = {
        "name": "a",
        "origin": str(image),
        "source": "",
        "tags": [0, 1],
        "settings": "",
        "pixels": {"0": 1, "2": 1},
    }
    (root / "journal.jsonl").write_text(json.dumps({**entry, "files": {}}) + "\n")
    return root


def test_label_maps_become_a_data_set_with_the_tags_of_their_pixels(tmp_path: Path) -> None:
    image = photos(tmp_path / "data", {"a.png": "cat,train"}) / "images" / "a.png"
    folder = label_folder(tmp_path / "made", image)
    assert is_label_folder(folder)
    write_export(tmp_path / "out", export_labels(folder), WRITERS["folder"])
    tagged = open_data(tmp_path / "out")
    (record,) = tagged.records
    assert (record.name, record.tags) == ("a", (1,))
    truth = tagged.truth(record)
    assert truth is not None
    assert truth.tolist() == [[0, 2]]


def test_label_maps_are_written_without_their_images(tmp_path: Path) -> None:
    export = export_labels(label_folder(tmp_path / "made", tmp_path / "gone.png"))
    assert export.remarks == ["images no longer where they were: 1 (a)"]
    write_export(tmp_path / "out", export, WRITERS["coco"])
    with pytest.raises(UsageError, match="no longer"):
        write_export(tmp_path / "other", export, WRITERS["folder"])


def test_label_maps_of_other_classes_are_refused_and_nothing_stays(tmp_path: Path) -> None:
    folder = label_folder(tmp_path / "made", tmp_path / "gone.png")
    write_mask(folder / "labels" / "a.png", np.array([[0, 3]], np.uint8))
    with pytest.raises(DataError, match="class index 3"):
        write_export(tmp_path / "out", export_labels(folder), WRITERS["yolo"])
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("names", [("tabby cat", "dog"), ("a;b", "c"), ("x (y, z)", "it's"), ("none", "nan")])
def test_a_table_holds_any_class_names(tmp_path: Path, names: tuple[str, str]) -> None:
    root = photos(tmp_path / "data", {"images/1.png": ",train", "2.png": ",val"})
    (root / "tags.csv").unlink()
    entries = {"images/images/1.png": [*names], "images/2.png": [names[0]]}
    (root / "tags.json").write_text(json.dumps(entries))
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    before = open_data(root)
    write_export(tmp_path / "out", export_data(root), WRITERS["folder"])
    after = open_data(tmp_path / "out")
    assert after.classes == before.classes
    assert [(one.name, one.tags) for one in after.records] == [(one.name, one.tags) for one in before.records]


def test_a_mask_format_needs_masks(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"1.png": "cat,train"})
    with pytest.raises(UsageError, match="holds label maps"):
        write_export(tmp_path / "out", export_data(root, masks=True), WRITERS["coco"])


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with suppress(KeyError), whole_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("")
        raise KeyError
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "all").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all"]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"1.png": "cat,train", "2.png": ",train"})
    write_mask(root / "masks" / "1.png", np.array([[0, 1]], np.uint8))
    (root / "images" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        write_export(tmp_path / "out", export_data(root, masks=True), WRITERS["coco"])
    assert not (tmp_path / "out").exists()
