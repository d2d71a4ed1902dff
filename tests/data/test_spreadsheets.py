"""What spreadsheets and the people before them do to a table of tags: each is read rightly, or named with its cause."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from wsss.config import Reading
from wsss.data.check import inspect_data
from wsss.data.dataset import list_splits, open_data
from wsss.data.findings import telling
from wsss.data.splits import odd_splits
from wsss.errors import DataError
from wsss.reporting import Silent

NAMES = ("0.jpg", "1.jpg", "2.jpg")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of three photos with a table of these lines."""

    def write(*lines: str, files: tuple[str, ...] = NAMES) -> Path:
        for number, name in enumerate(files):
            Image.new("RGB", (24, 20), (40 * number, 80, 9)).save(tmp_path / name)
        (tmp_path / "tags.csv").write_text("\n".join([*lines, ""]))
        return tmp_path

    return write


def said(root: Path) -> list[str]:
    """What a training would be told of the folder."""
    texts: list[str] = []
    open_data(root, split=list_splits(root)[0], note=telling(texts.append))
    return texts


def kinds(root: Path) -> dict[str, str]:
    """Kinds of findings of ``data check``, with the last text of each."""
    return {one.kind: one.what for one in inspect_data(root, Silent()).findings}


def tags(root: Path) -> dict[str, tuple[str, ...]]:
    tagged = open_data(root, split=list_splits(root)[0])
    return {record.name: tuple(tagged.classes[tag] for tag in record.tags) for record in tagged.records}


@pytest.mark.parametrize(("yes", "no"), [("yes", "no"), ("Y", "N"), ("x", ""), ("TRUE", "FALSE"), ("1", "0")])
def test_columns_of_yes_and_no(table: Callable[..., Path], yes: str, no: str) -> None:
    root = table("image,cat,dog", f"0.jpg,{yes},{no}", f"1.jpg,{no},{yes}", f"2.jpg,{no},{yes}")
    assert tags(root) == {"0": ("cat",), "1": ("dog",), "2": ("dog",)}


@pytest.mark.parametrize("cell", ["2", "0,7", "0.93", "80%"])
def test_counts_and_probabilities_are_named(table: Callable[..., Path], cell: str) -> None:
    root = table("image;cat;dog", "0.jpg;1;0", f"1.jpg;{cell};1", f"2.jpg;{cell};1")
    assert [text.split("tags.csv ")[1] for text in said(root)] == [
        f"line 3: column 'cat' is no class: '{cell}' is not 0 or 1"
    ]
    root = table("image;cat", "0.jpg;1", f"1.jpg;{cell}", f"2.jpg;{cell}")
    with pytest.raises(DataError, match=f"column 'cat' has '{cell}', which is neither") as error:
        open_data(root, reading=Reading(format="table", tags=root / "tags.csv"))
    assert "write 1, 0 or ?" in error.value.fix


def test_a_column_is_valid_makes_two_splits(table: Callable[..., Path]) -> None:
    root = table("image,labels,is_valid", "0.jpg,cat,True", "1.jpg,dog,False", "2.jpg,dog,False")
    assert {name: len(open_data(root, split=name)) for name in list_splits(root)} == {"val": 1, "train": 2}


def test_spaces_that_separate_labels_are_said(table: Callable[..., Path]) -> None:
    root = table("image,labels", "0.jpg,red fox", "1.jpg,red fox", "2.jpg,fox")
    assert any("'red fox' is read as 2 labels" in text and "2 lines" in text for text in said(root))
    assert "label-spaces" in kinds(root)
    (root / "classes.txt").write_text("red fox\nfox\n")
    assert said(root) == []
    assert tags(root)["0"] == ("red fox",)


@pytest.mark.parametrize("joined", ["cat+dog", "cat/dog", "cat & dog", "cat and dog"])
def test_labels_joined_otherwise_are_named(table: Callable[..., Path], joined: str) -> None:
    root = table("image,labels", f"0.jpg,{joined}", "1.jpg,dog;sheep", "2.jpg,cat;sheep")
    assert "did you mean 'cat;dog'?" in kinds(root)["class-joined"]


def test_a_joining_word_as_a_class_is_named(table: Callable[..., Path]) -> None:
    root = table("image,labels", "0.jpg,cat and dog", "1.jpg,dog", "2.jpg,cat")
    assert "'and' is a class, since white space separates labels" in kinds(root)["class-joined"]


@pytest.mark.parametrize("header", ["image,labels", "image,labels,weather"])
def test_an_open_quote_is_named_where_it_opens(table: Callable[..., Path], header: str) -> None:
    more = "," * (header.count(",") - 1)
    root = table(header, f"0.jpg,cat{more}", f'1.jpg,"dog{more}', f"2.jpg,dog{more}")
    with pytest.raises(DataError, match=r"tags\.csv line 3: not CSV from there on"):
        open_data(root, reading=Reading(tags=root / "tags.csv"))


def test_a_number_with_another_ending_is_no_other_number(table: Callable[..., Path]) -> None:
    root = table("image,labels", "0.png,cat", "1.jpg,dog", "2.jpg,dog")
    with pytest.raises(DataError, match="differ in their ending") as error:
        open_data(root)
    assert "spreadsheet" not in error.value.problem


def test_a_name_as_in_an_address_is_found_near(table: Callable[..., Path]) -> None:
    root = table("image,labels", "a%20b.jpg,cat", "1.jpg,dog", "2.jpg,dog", files=("a b.jpg", "1.jpg", "2.jpg"))
    with pytest.raises(DataError, match=r"written as in an address"):
        open_data(root)


def test_two_images_of_one_name_are_named_so(table: Callable[..., Path]) -> None:
    root = table("image,labels", "0.jpg,cat", "0.png,dog", "1.jpg,dog", files=("0.jpg", "0.png", "1.jpg"))
    found = inspect_data(root, Silent()).findings
    assert not any("files ending in .png are not read" in one.what for one in found)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04rest", "workbook"),
        (b"\xd0\xcf\x11\xe0rest", "old Excel workbook"),
        (b"PAR1rest", "Parquet"),
        (b"\x1f\x8brest", "gzip"),
    ],
)
def test_what_is_no_text_is_named(table: Callable[..., Path], content: bytes, what: str) -> None:
    root = table("image,labels", "0.jpg,cat")
    (root / "tags.csv").write_bytes(content)
    with pytest.raises(DataError, match=what) as error:
        open_data(root)
    assert "save it" in error.value.fix


def test_a_workbook_beside_the_images_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (24, 20)).save(tmp_path / "0.jpg")
    with zipfile.ZipFile(tmp_path / "tags.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DataError) as error:
        open_data(tmp_path)
    assert "tags.xlsx as CSV" in error.value.fix
    with pytest.raises(DataError, match="workbook"):
        open_data(tmp_path, reading=Reading(tags=tmp_path / "tags.xlsx"))


def test_slips_in_names_of_splits_are_named(table: Callable[..., Path]) -> None:
    assert [*odd_splits(["trian", "vla", "train2017", "val", "test", "night", "0"])] == [
        "'trian' is a split of its own; did you mean 'train'?",
        "'vla' is a split of its own; did you mean 'val'?",
    ]
    root = table("image,labels,split", "0.jpg,cat,train", "1.jpg,dog,train", "2.jpg,dog,vla")
    assert "did you mean 'val'?" in kinds(root)["split-alike"]


def test_two_columns_of_one_name_are_refused(table: Callable[..., Path]) -> None:
    root = table("image,cat,dog,cat", "0.jpg,1,0,0", "1.jpg,0,1,1")
    with pytest.raises(DataError, match="two columns are named 'cat'"):
        open_data(root, reading=Reading(tags=root / "tags.csv"))


def test_a_blank_split_among_others_is_refused(table: Callable[..., Path]) -> None:
    root = table("image,cat,dog,split", "0.jpg,1,0,train", "1.jpg,0,1,nan", "2.jpg,0,1,val")
    with pytest.raises(DataError, match=r"no split for '1\.jpg', but other lines have one"):
        open_data(root, split="train")


def test_a_second_column_of_labels_is_said(table: Callable[..., Path]) -> None:
    root = table("image,label,label_name", "0.jpg,0,cat", "1.jpg,1,dog", "2.jpg,1,dog")
    (text,) = said(root)
    assert "labels are read from 'label', not from 'label_name'" in text
    assert open_data(root, reading=Reading(columns=("image=image", "labels=label_name"))).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("cat:0.93", "ends in a number, as a score"),
        ("KÃ¤fer", "may be 'Käfer', read in the wrong encoding"),
        ("c\u0430t", "mixes CYRILLIC and LATIN letters"),
    ],
)
def test_strange_letters_are_named(table: Callable[..., Path], label: str, what: str) -> None:
    root = table("image,labels", f"0.jpg,{label}", "1.jpg,dog", "2.jpg,Käfer")
    assert what in kinds(root)["class-letters"]


def test_curly_quotes_are_named(table: Callable[..., Path]) -> None:
    root = table("image,labels", "0.jpg,\u201ccat\u201d", "1.jpg,dog", "2.jpg,dog")
    assert "has a quote" in kinds(root)["class-cut"]


def test_masks_in_another_folder_are_named(table: Callable[..., Path]) -> None:
    root = table("image,labels", "0.jpg,cat", "1.jpg,dog", "2.jpg,dog")
    (root / "images").mkdir()
    (root / "gt").mkdir()
    for name in NAMES:
        (root / name).rename(root / "images" / name)
    for number in (0, 1):
        Image.new("L", (24, 20), 1).save(root / "gt" / f"{number}.png")
    assert kinds(root)["mask-elsewhere"].startswith("2 PNG files named as images")
    (root / "gt").rename(root / "masks")
    assert "mask-elsewhere" not in kinds(root)


def test_two_lines_of_an_image_that_contradict_each_other_are_said(table: Callable[..., Path]) -> None:
    root = table("image,cat,dog", "0.jpg,1,0", "1.jpg,0,1", "0.jpg,0,1", "1.jpg,1,1", "2.jpg,0,1", "2.jpg,0,1")
    first, _ = said(root)
    assert "line 4: another line of this image" in first
    assert "says otherwise of cat, dog; it counts as present" in first
    assert tags(root) == {"0": ("cat", "dog"), "1": ("cat", "dog"), "2": ("dog",)}


@pytest.mark.parametrize("missing", ["NA", "nan", "None", "#N/A"])
def test_missing_values_are_unknown_and_said(table: Callable[..., Path], missing: str) -> None:
    root = table("image,cat,dog", f"0.jpg,1,{missing}", "1.jpg,0,1", "2.jpg,0,1")
    (text,) = said(root)
    assert "missing values (NA, NaN, None) in 1 line are read as unknown" in text
    assert open_data(root).records[0].unknown == (1,)
