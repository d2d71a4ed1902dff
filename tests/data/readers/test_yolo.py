"""YOLO labels: layouts, names, boxes and outlines, empty and missing files, damaged lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import wsss
from wsss.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out


def write(root: Path, labels: str | None, names: str = "{0: cat, 2: dog}", layout: str = "images/train") -> Path:
    images = root / layout
    images.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(images / "a.png")
    folder = root / layout.replace("images", "labels")
    folder.mkdir(parents=True)
    if labels is not None:
        (folder / "a.txt").write_text(labels)
    (root / "data.yaml").write_text(f"path: /elsewhere\ntrain: {layout}\nnames: {names}\n")
    return root


@pytest.mark.parametrize("layout", ["images/train", "train/images"])
def test_both_layouts_and_ids_with_gaps(tmp_path: Path, layout: str) -> None:
    dataset = wsss.open_dataset(write(tmp_path, "2 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", layout=layout))
    tagged = dataset.split("train")
    assert tagged.classes == ("cat", "dog")
    truth_HW = tagged.truth(tagged.records[0])
    assert truth_HW is not None
    assert truth_HW.tolist() == [[0] * 4, [0, 2, 2, 0], [0, 2, 2, 0], [0] * 4]


@pytest.mark.parametrize("labels", ["", None])
def test_an_empty_or_missing_file_is_none_of_the_classes(tmp_path: Path, labels: str | None) -> None:
    tagged = wsss.open_dataset(write(tmp_path, labels)).split("train")
    truth_HW = tagged.truth(tagged.records[0])
    assert tagged.records[0].tags == ()
    assert truth_HW is not None
    assert not truth_HW.any()


def test_a_box_is_a_tag_without_mask(tmp_path: Path) -> None:
    tagged = wsss.open_dataset(write(tmp_path, "0 .5 .5 .5 .5\n")).split("train")
    assert len(tagged.records[0].tags) == 1
    assert not tagged.has_truth(tagged.records[0])


@pytest.mark.parametrize(
    "line", ["1 .1 .1 .2 .2", "0 .1 .1 .2", "0 nan .1 .2 .2", "x", "0.5 .1 .1 .2 .2", "1e999 1 1 1 1"]
)
def test_a_bad_line_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"a\.txt line 2"):
        wsss.open_dataset(write(tmp_path, f"\n{line}\n")).records()


@pytest.mark.parametrize("names", ["[]", "5", "{a: b}", "[[1]]", "{-1: cat}", "[null]"])
def test_bad_names_are_an_error(tmp_path: Path, names: str) -> None:
    with pytest.raises(DataError, match="names"):
        wsss.open_dataset(write(tmp_path, "", names=names)).records()
