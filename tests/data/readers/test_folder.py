from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.errors import DataError, UsageError


def test_a_split_in_the_order_of_the_table(folder_root: Path) -> None:
    tagged = open_data(folder_root, split="train")
    assert tagged.classes == ("cat", "dog")
    assert [(record.name, record.tags) for record in tagged.records] == [
        ("a", (0, 1)),
        ("street/c", ()),
        ("street/far/d", (1,)),
    ]
    assert tagged.records[1].image == folder_root / "street" / "c.JPG"
    assert (tagged.split, tagged.root, tagged.mask_folder) == ("train", folder_root, None)


def test_images_may_lie_in_a_folder_of_their_own(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(tmp_path / "images" / "a.jpg")
    write_photo(tmp_path / "images" / "s" / "b.jpg")
    write_photo(tmp_path / "masks" / "a.png")
    (tmp_path / "tags.csv").write_text("image,labels\nimages/a.jpg,cat\ns/b.jpg,dog\n")
    tagged = open_data(tmp_path)
    assert [record.name for record in tagged.records] == ["a", "s/b"]
    assert tagged.split == "all"
    assert tagged.mask_path(tagged.records[0]) == tmp_path / "masks" / "a.png"
    assert tagged.mask_path(tagged.records[1]) is None


def test_masks_and_saliency_are_no_photos(folder_root: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(folder_root / "masks" / "a.png")
    write_photo(folder_root / "Saliency" / "a.png")
    assert len(open_data(folder_root, split="val")) == 1


def test_splits_in_order_of_appearance(folder_root: Path) -> None:
    assert list_splits(folder_root) == ("train", "val")
    with pytest.raises(UsageError, match="there are train, val"):
        open_data(folder_root)
    with pytest.raises(UsageError, match=r"no split 'trian' \(did you mean 'train'\?\)"):
        open_data(folder_root, split="trian")


def test_json(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "b.jpg")
    content = {"b.jpg": ["traffic light", "bus"], "a": []}
    (tmp_path / "tags.json").write_text(json.dumps(content))
    tagged = open_data(tmp_path)
    assert tagged.classes == ("bus", "traffic light")
    assert [(record.name, record.tags) for record in tagged.records] == [("b", (0, 1)), ("a", ())]


def test_the_table_may_lie_elsewhere(folder_root: Path, tmp_path: Path) -> None:
    (folder_root / "tags.csv").replace(tmp_path / "mine.csv")
    assert len(open_data(folder_root, split="train", reading=Reading(tags=tmp_path / "mine.csv"))) == 3
    with pytest.raises(DataError, match=r"other\.csv"):
        open_data(folder_root, split="train", reading=Reading(tags=tmp_path / "other.csv"))


def test_images_without_tags_are_counted(folder_root: Path, write_photo: Callable[..., Path]) -> None:
    for name in ("w", "x", "y", "z"):
        write_photo(folder_root / "new" / f"{name}.jpg")
    with pytest.raises(DataError, match=r"no tags for 4 images \(new/w, new/x, new/y, \.\.\.\)"):
        open_data(folder_root, split="train")


def test_missing_images_are_counted_in_their_split_alone(folder_root: Path) -> None:
    shutil.rmtree(folder_root / "street")
    with pytest.raises(DataError, match=r"2 listed images are not in .* \(street/c.jpg, street/far/d\)"):
        open_data(folder_root, split="train")
    assert len(open_data(folder_root, split="val")) == 1


def test_another_suffix_is_another_image(folder_root: Path) -> None:
    (folder_root / "a.jpg").rename(folder_root / "a.png")
    with pytest.raises(DataError, match=r"1 listed images are not in .* \(a\.jpg\)"):
        open_data(folder_root, split="train")


@pytest.mark.parametrize("tags_from", ["xml", "masks"])
def test_a_folder_has_only_its_table(folder_root: Path, tags_from: str) -> None:
    with pytest.raises(UsageError, match=f"tags from {tags_from} need the format of PASCAL VOC"):
        open_data(folder_root, split="train", reading=Reading(tags_from=tags_from))  # type: ignore[arg-type]
