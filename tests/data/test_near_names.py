"""Names that look the same are one where only one can be meant; near names are told with what differs."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.check import inspect_data
from wsss.data.dataset import open_data
from wsss.data.layers import check_layers
from wsss.data.near_names import NearNames, by_sight, same_by_sight, spellings, tidy
from wsss.errors import DataError
from wsss.reporting import Silent

COMPOSED, APART = "Zürich", unicodedata.normalize("NFD", "Zürich")


@pytest.mark.parametrize(
    "name", [COMPOSED, APART, "Zürich ", " Zürich", "Zu\u0308rich", "Z\u200bürich", "\ufeffZürich", "Zürich\u00a0"]
)
def test_names_that_look_the_same(name: str) -> None:
    assert by_sight(name) == COMPOSED


@pytest.mark.parametrize(("first", "second"), [("a b", "a\u00a0b"), ("a  b", "a b"), ("s /a", "s/a"), ("a\tb", "a b")])
def test_spaces_look_the_same(first: str, second: str) -> None:
    assert by_sight(first) == by_sight(second)


@pytest.mark.parametrize(("first", "second"), [("a", "A"), ("1", "01"), ("a-b", "a b"), ("u", "ü"), ("a/b", "a b")])
def test_names_that_look_different(first: str, second: str) -> None:
    assert by_sight(first) != by_sight(second)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_the_form_of_a_form_is_itself(name: str) -> None:
    assert by_sight(by_sight(name)) == by_sight(name)
    assert tidy(tidy(name)) == tidy(name)
    assert name in spellings(name)


@pytest.mark.parametrize(
    ("name", "names", "said"),
    [
        ("123", ["000123", "000124"], " (did you mean '000123'? they differ in zeros before or behind a number"),
        ("123.0", ["000123"], " (did you mean '000123'? they differ in zeros"),
        ("1.jpg", ["0001.jpg"], " (did you mean '0001.jpg'? they differ in zeros"),
        ("img_7", ["img_007"], " (did you mean 'img_007'? they differ in zeros"),
        ("DOG", ["dog"], " (did you mean 'dog'?)"),
        ("a.png", ["a.jpg"], " (did you mean 'a.jpg'? they differ in their ending)"),
        ("a", ["street/a"], " (did you mean 'street/a'? they differ in their folder)"),
        ("train/a", ["a"], " (did you mean 'a'? they differ in their folder)"),
        ("x/7", ["y/0007"], " (did you mean 'y/0007'? they differ in their folder and in zeros"),
        ("'a'", ["a"], " (did you mean 'a'? they differ in quotes)"),
        (APART, [COMPOSED], f" (did you mean '{COMPOSED}'? they differ in their Unicode form, in spaces"),
        ("trian", ["train", "val"], " (did you mean 'train'?)"),
        ("12", ["012", "0012"], ""),
        ("2007_000033", ["2007_000032"], ""),
        ("2.007E+09", ["2007000032"], " (a number that a spreadsheet has shortened?)"),
        ("gone", ["cat", "dog"], ""),
        ("a.png", ["c.png"], ""),
        ("hrose.png", ["horse.png"], " (did you mean 'horse.png'?)"),
    ],
)
def test_the_nearest_name_and_what_differs(name: str, names: list[str], said: str) -> None:
    asked = NearNames(names).ask(name)
    assert asked.startswith(said)
    assert bool(asked) == bool(said)


def test_a_name_is_matched_only_where_one_is_meant() -> None:
    assert same_by_sight([COMPOSED, "b"], {APART, "b"}) == {COMPOSED: APART}
    assert same_by_sight([COMPOSED, APART], {APART}) == {}
    assert same_by_sight(["a b"], {"a  b", "a\u00a0b"}) == {}
    assert same_by_sight(["a b", "a   b"], {"a  b"}) == {}
    assert same_by_sight(["a"], {"A"}) == {}


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_images_and_masks_are_found_in_any_form(
    tmp_path: Path, write_photo: Callable[..., Path], written: str, stored: str
) -> None:
    file, line = (unicodedata.normalize(form, "Zürich-1") for form in (stored, written))  # type: ignore[arg-type]
    write_photo(tmp_path / "images" / f"{file}.jpg")
    write_photo(tmp_path / "masks" / f"{line}.png")
    (tmp_path / "tags.csv").write_text(f"image,labels\n{line}.jpg,cat\n", encoding="utf-8")
    tagged = open_data(tmp_path)
    assert [record.name for record in tagged.records] == [file]
    assert tagged.has_truth(tagged.records[0])
    inspection = inspect_data(tmp_path, Silent(), masks=False)
    assert (inspection.count("error"), inspection.counts()["name-form"], inspection.classes) == (0, 1, {"cat": 1})
    assert "Zu\\u0308rich-1" in next(one.what for one in inspection.findings if one.kind == "name-form")


def test_lists_and_tables_of_voc_are_matched_as_well(voc_root: Path) -> None:
    (voc_root / "JPEGImages" / "n1.jpg").rename(voc_root / "JPEGImages" / f"{APART}.jpg")
    (voc_root / "SegmentationClass" / "n1.png").rename(voc_root / "SegmentationClass" / f"{COMPOSED}.png")
    (voc_root / "ImageSets" / "Segmentation" / "train.txt").write_text(f"{COMPOSED}\n", encoding="utf-8")
    (voc_root / "tags.csv").write_text(f"image,labels\n{COMPOSED},dog\n", encoding="utf-8")
    tagged = open_data(voc_root, split="train")
    assert [(record.name, record.tags) for record in tagged.records] == [(APART, (2,))]
    assert tagged.has_truth(tagged.records[0])


def test_numbers_without_their_zeros_are_told(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    for number in range(1, 4):
        write_photo(tmp_path / f"{number:06d}.jpg")
    (tmp_path / "tags.csv").write_text("image,labels\n1.0,cat\n2.0,dog\n3.0,cat\n")
    told = r"000001 \(there are tags for '1.0': they differ in zeros before or behind a number"
    with pytest.raises(DataError, match=told):
        open_data(tmp_path)


def test_classes_are_one_in_any_form(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "b.jpg")
    (tmp_path / "tags.csv").write_text(f"image,labels\na,{COMPOSED};traffic\u00a0light\nb,{APART};traffic light\n")
    assert open_data(tmp_path).classes == (COMPOSED, "traffic light")
    (tmp_path / "classes.txt").write_text(f"{APART}\ntraffic  light\n")
    assert [record.tags for record in open_data(tmp_path).records] == [(0, 1), (0, 1)]
    assert [record.tags for record in open_data(tmp_path, classes=[APART, "traffic light"]).records] == [(0, 1)] * 2


def test_a_missing_mask_is_told_what_lies_there(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(tmp_path / "images" / "0001.jpg", 40, 40)
    write_photo(tmp_path / "masks" / "1.png")
    (tmp_path / "tags.csv").write_text("image,labels\n0001,cat\n")
    whats = [one.what for one in inspect_data(tmp_path, Silent()).findings if one.kind == "mask-missing"]
    assert "(0001); 0001.png (did you mean '1.png'? they differ in zeros before or behind a number" in whats[0]


@pytest.mark.parametrize("line", ["my cat 1", "my cat 1.jpg", "my cat\u00a01", "my  cat 1.jpg"])
def test_lists_of_voc_name_files_with_spaces(voc_root: Path, line: str) -> None:
    (voc_root / "JPEGImages" / "n1.jpg").rename(voc_root / "JPEGImages" / "my cat 1.jpg")
    (voc_root / "ImageSets" / "Segmentation" / "train.txt").write_text(f"{line}\nn2\n", encoding="utf-8")
    (voc_root / "tags.csv").write_text("image,labels\nmy cat 1,cat\nn2,cat\n")
    assert [record.name for record in open_data(voc_root, split="train").records] == ["my cat 1", "n2"]


def test_a_missing_layer_is_told_what_lies_there(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(tmp_path / "images" / "0001.jpg")
    write_photo(tmp_path / "Saliency" / "1.png")
    (tmp_path / "tags.csv").write_text("image,labels\n0001,cat\n")
    with pytest.raises(DataError, match=r"0001\.png \(did you mean '1\.png'\? they differ in zeros"):
        check_layers(tmp_path / "Saliency", open_data(tmp_path), "saliency map", "")


def test_names_that_look_the_same_keep_the_order_of_the_table() -> None:
    wanted = [f"{letter}  x" for letter in "qwertyuiop"]
    assert [*same_by_sight(wanted, {f"{letter} x" for letter in "qwertyuiop"})] == wanted
