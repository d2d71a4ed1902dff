from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wsss.config import Reading
from wsss.data.dataset import checked_classes, list_splits, open_data, open_unlabelled
from wsss.errors import DataError
from wsss.outputs.manifest import write_manifest


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such data folder"):
        open_data(tmp_path / "gone")


@pytest.mark.parametrize(
    ("layout", "sought"),
    [
        ("auto", "JPEGImages with ImageSets, and for tags.csv or tags.json"),
        ("voc", "looked for JPEGImages with ImageSets"),
        ("folder", "looked for tags.csv or tags.json"),
    ],
)
def test_a_folder_that_is_no_data_set(
    tmp_path: Path, write_photo: Callable[..., Path], layout: str, sought: str
) -> None:
    write_photo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=sought) as caught:
        list_splits(tmp_path, Reading(format=layout))
    assert "data/README.md" in caught.value.fix
    assert str(tmp_path / "tags.csv") in caught.value.fix


def test_the_parent_of_a_data_set(voc_root: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_data(voc_root.parent)
    assert caught.value.fix == f"give {voc_root} instead"


def test_voc_goes_before_folder_unless_asked(voc_root: Path) -> None:
    assert list_splits(voc_root) == ("train", "val")
    assert list_splits(voc_root, Reading(format="folder")) == ("all",)


def test_tags_are_mapped_onto_the_classes_of_a_checkpoint(folder_root: Path) -> None:
    tagged = open_data(folder_root, split="train", classes=["dog", "horse", "cat"])
    assert tagged.classes == ("dog", "horse", "cat")
    assert [record.tags for record in tagged.records] == [(0, 2), (), (0,)]


def test_unknown_tags_are_named_with_the_nearest_class(folder_root: Path) -> None:
    (folder_root / "classes.txt").write_text("Cat\ndoge\n")
    with pytest.raises(DataError) as caught:
        open_data(folder_root, split="train")
    assert "'cat' (did you mean 'Cat'?) of a" in caught.value.problem
    assert "'dog' (did you mean 'doge'?) of street/far/d" in caught.value.problem
    assert "the classes are Cat, doge" in caught.value.problem
    with pytest.raises(DataError, match="unknown tags: 'dog' of"):
        open_data(folder_root, split="train", classes=["cat"], reading=Reading(tags=folder_root / "tags.csv"))


def test_masks_in_the_order_of_another_model_are_refused(voc_root: Path) -> None:
    with pytest.raises(DataError, match="sheep, cat, dog, the model's are cat, dog, sheep"):
        open_data(voc_root, split="val", classes=["cat", "dog", "sheep"])
    longer = open_data(voc_root, split="val", classes=["sheep", "cat", "dog", "horse"])
    assert longer.records[0].tags == (1,)


def test_a_class_file_gives_names_with_spaces(folder_root: Path) -> None:
    (folder_root / "classes.txt").write_bytes(b"\xef\xbb\xbftraffic light\r\n\r\n bus \r\n")
    (folder_root / "tags.csv").write_text("image,labels\na,traffic light\nb,bus\nstreet/c,\nstreet/far/d,bus\n")
    tagged = open_data(folder_root)
    assert tagged.classes == ("traffic light", "bus")
    assert [record.tags for record in tagged.records] == [(0,), (1,), (), (1,)]


def test_one_class_is_enough(folder_root: Path) -> None:
    (folder_root / "tags.csv").write_text("image,labels\na,cat\nb,\nstreet/c,\nstreet/far/d,cat\n")
    tagged = open_data(folder_root)
    assert tagged.classes == ("cat",)
    assert tagged.present(tagged.records[0]).tolist() == [True]
    assert tagged.present(tagged.records[1]).tolist() == [False]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("cat", "dog", "cat"), r"listed twice \(cat\)"),
        (("Background", "cat"), "'background' is a class there"),
        ((), "0 classes; label maps hold 1 to 254"),
        (tuple(map(str, range(255))), "255 classes"),
    ],
)
def test_class_names_that_are_refused(names: tuple[str, ...], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        checked_classes(names, Path("classes.txt"))
    assert checked_classes(tuple(map(str, range(254))), Path("classes.txt"))


def test_class_files_are_checked(folder_root: Path) -> None:
    (folder_root / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match=r"classes\.txt: class names listed twice"):
        open_data(folder_root, split="train")


def test_photos_without_tags(folder_root: Path) -> None:
    records = open_unlabelled(folder_root)
    assert [record.name for record in records] == ["a", "b", "street/c", "street/far/d"]
    assert {record.tags for record in records} == {()}
    assert records[2].image == folder_root / "street" / "c.JPG"
    (one,) = open_unlabelled(folder_root / "street" / "c.JPG")
    assert (one.name, one.image) == ("c", folder_root / "street" / "c.JPG")


def test_of_a_data_folder_the_images_alone(folder_root: Path, voc_root: Path, write_photo: Callable[..., Path]) -> None:
    for folder in ("masks", "Saliency"):
        write_photo(folder_root / folder / "a.png")
    assert [record.name for record in open_unlabelled(folder_root)] == ["a", "b", "street/c", "street/far/d"]
    (folder_root / "tags.csv").unlink()  # now any folder, where nothing tells what masks are
    assert len(open_unlabelled(folder_root)) == 6
    records = open_unlabelled(voc_root)
    assert [record.name for record in records] == ["n1", "n2", "n3", "n4"]
    assert records[0].image == voc_root / "JPEGImages" / "n1.jpg"


def test_images_of_a_data_folder_are_called_as_in_its_splits(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    photo = write_photo(tmp_path / "images" / "s" / "b.jpg")
    write_photo(tmp_path / "poster.jpg")
    (tmp_path / "tags.csv").write_text("image,labels\ns/b,dog\n")
    (record,) = open_unlabelled(tmp_path)
    assert (record.name, record.image) == (open_data(tmp_path).records[0].name, photo) == ("s/b", photo)


def test_label_maps_made_below_the_photos_do_no_harm(folder_root: Path, write_photo: Callable[..., Path]) -> None:
    """`make-pseudo --data photos -o photos/pseudo`."""
    write_photo(folder_root / "pseudo" / "labels" / "a.png")
    with pytest.raises(DataError, match="no tags for 1 images"):
        open_data(folder_root, split="train")
    write_manifest(folder_root / "pseudo", {}, {})
    assert len(open_data(folder_root, split="train")) == 3
    assert len(open_unlabelled(folder_root)) == 4


def test_photos_that_are_none(folder_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such image or folder"):
        open_unlabelled(tmp_path / "gone")
    with pytest.raises(DataError, match=r"tags\.csv: not an image"):
        open_unlabelled(folder_root / "tags.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no image in it"):
        open_unlabelled(tmp_path / "empty")
