"""The splits of YOLO's data.yaml: folders, lists of images, paths of other machines, a path below, other places."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from PIL import Image

import wsss
from wsss.errors import DataError

NAMES = "names: [cat, dog]\n"
HALF = "{} 0 0 .5 0 .5 1 0 1\n"


def write(root: Path, yaml: str, folder: str = "images/train") -> Path:
    """A data set of a cat (a) and a dog (b), each on the left half of its image."""
    images = root / folder
    labels = root.joinpath(*("labels" if part == "images" else part for part in folder.split("/")))
    for path in (images, labels):
        path.mkdir(parents=True)
    for number, name in enumerate("ab"):
        Image.new("RGB", (4, 2)).save(images / f"{name}.png")
        (labels / f"{name}.txt").write_text(HALF.format(number))
    (root / "data.yaml").write_text(yaml)
    return root


def read(root: Path, **reading: object) -> tuple[dict[str, list[tuple[str, tuple[int, ...]]]], list[str]]:
    """The images and tags of each split, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = wsss.open_dataset(root, **reading)
        found = {name: [(one.name, one.tags) for one in data.records(name)] for name in data.splits}
    return found, [str(one.message) for one in caught]


@pytest.mark.parametrize(
    ("named", "split"),
    [
        ("train: images/train", "train"),
        ("train: ../images/train", "train"),
        ("train: C:\\data\\birds\\images\\train", "train"),
        ("path: /home/someone/birds\ntrain: images/train/", "train"),
    ],
)
def test_a_folder_is_a_split_whatever_leads_to_it(tmp_path: Path, named: str, split: str) -> None:
    found, said = read(write(tmp_path, f"{named}\n{NAMES}"))
    assert found == {split: [("images/train/a", (0,)), ("images/train/b", (1,))]}
    assert not said


def test_text_files_list_the_images_of_a_split(tmp_path: Path) -> None:
    root = write(tmp_path, f"path: /elsewhere\ntrain: lists/train.txt\nval: [val.txt]\n{NAMES}", "images")
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("./images/a.png\n\n")
    (root / "val.txt").write_text("/elsewhere/images/b.png\r\n")
    found, said = read(root)
    assert found == {"train": [("images/a", (0,))], "val": [("images/b", (1,))]}
    assert not said


def test_an_image_in_no_list_is_counted_and_a_listed_one_must_be_there(tmp_path: Path) -> None:
    root = write(tmp_path, f"train: train.txt\n{NAMES}")
    (root / "train.txt").write_text("images/train/a.png\n")
    found, said = read(root)
    assert found == {"train": [("images/train/a", (0,))]}
    assert "1 images are in no list and are left out (images/train/b.png)" in said[0]
    (root / "train.txt").write_text("images/train/a.png\nimages/train/c.png\n")
    with pytest.raises(DataError, match=r"c\.png"):
        read(root)


def test_a_list_of_folders_is_one_split(tmp_path: Path) -> None:
    root = write(tmp_path, f"train: [images/north, images/south]\n{NAMES}", "images/north")
    write(root, f"train: [images/north, images/south]\n{NAMES}", "images/south")
    found, _ = read(root)
    assert [*found] == ["train"]
    assert len(found["train"]) == 4


def test_one_folder_for_two_splits_is_told(tmp_path: Path) -> None:
    found, said = read(write(tmp_path, f"train: images/train\nval: images/train\n{NAMES}"))
    assert [*found] == ["train"]
    assert "'val' names images/train as 'train' does" in said[0]


def test_the_folder_may_lie_below_the_path_of_data_yaml(tmp_path: Path) -> None:
    root = write(tmp_path, f"path: birds\ntrain: images/train\n{NAMES}", "birds/images/train")
    assert read(root) == ({"train": [("birds/images/train/a", (0,)), ("birds/images/train/b", (1,))]}, [])


def test_data_yaml_may_lie_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "birds", f"path: birds\ntrain: images/train\n{NAMES}")
    (root / "data.yaml").rename(tmp_path / "birds.yaml")
    with pytest.raises(DataError, match="no data set there"):
        read(root)
    found, said = read(root, tags=tmp_path / "birds.yaml")
    assert found == {"train": [("images/train/a", (0,)), ("images/train/b", (1,))]}
    assert not said


def test_a_box_beside_an_outline_leaves_the_image_without_a_mask(tmp_path: Path) -> None:
    root = write(tmp_path, f"train: images/train\n{NAMES}")
    with (root / "labels" / "train" / "a.txt").open("a") as file:
        file.write("1 .5 .5 .5 .5\n")
    data = wsss.open_dataset(root)
    first, second = data.records("train")
    assert first.tags == (0, 1)
    assert data.truth(first) is None
    truth_HW = data.truth(second)
    assert truth_HW is not None
    assert truth_HW.tolist() == [[2, 2, 0, 0]] * 2
