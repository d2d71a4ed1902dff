from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.findings import Place
from wsss.data.readers.label_fields import label_separator
from wsss.data.readers.tag_table import image_name, read_tag_file
from wsss.errors import DataError


def labels_of(path: Path, known: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    return {name: line.labels for name, line in read_tag_file(path, known=known).lines.items()}


def table(tmp_path: Path, content: str | bytes, name: str = "tags.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("cat  dog", ("cat", "dog")),
        ("traffic light; bus ;", ("traffic light", "bus")),
        ("traffic light|bus", ("traffic light", "bus")),
        ('"traffic light, bus"', ("traffic light", "bus")),
        ("cat cat", ("cat",)),
        ("  ", ()),
    ],
)
def test_separators(tmp_path: Path, field: str, labels: tuple[str, ...]) -> None:
    assert labels_of(table(tmp_path, f"image,labels\na.jpg,{field}\n")) == {"a": labels}


def test_one_separator_serves_the_whole_file(tmp_path: Path) -> None:
    path = table(tmp_path, "image,labels\na,traffic light\nb,bus;car\n")
    assert labels_of(path) == {"a": ("traffic light",), "b": ("bus", "car")}


def test_a_known_class_is_never_taken_apart(tmp_path: Path) -> None:
    path = table(tmp_path, "image,labels\na,traffic light\nb,bus car\n")
    assert labels_of(path, known=("traffic light",)) == {"a": ("traffic light",), "b": ("bus", "car")}


def test_a_line_that_mixes_separators_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "image,labels\na,cat dog\nb,cat;dog\n")
    because = r".*the ';' in line 3 makes ';' the separator of every line"
    with pytest.raises(DataError, match=r"tags\.csv line 2: 'cat dog' may be one class or 2" + because):
        read_tag_file(path).classes()


@pytest.mark.parametrize(
    ("fields", "separator"),
    [
        (("cat dog", '"cat, dog"', "cat|dog"), (",", 3)),
        (("cat dog|cow;", "dog;cat"), ("|", 2)),
        (("cat dog", "cat"), None),
    ],
)
def test_the_first_separator_is_told(
    tmp_path: Path, fields: tuple[str, ...], separator: tuple[str, int] | None
) -> None:
    lines = "".join(f"p{number},{field}\n" for number, field in enumerate(fields))
    found = read_tag_file(table(tmp_path, f"image,labels\n{lines}")).separator
    assert (found and (found.character, found.place.line)) == separator


def test_lists_of_labels_need_no_separator(tmp_path: Path) -> None:
    read = read_tag_file(table(tmp_path, '{"a": [";", "cat, dog"], "b": ["cat dog"]}', "tags.json"))
    assert (read.separator, read.why_joined()) == (None, "")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.text("abc é", min_size=1).map(str.strip).filter(bool)), min_size=1))
def test_labels_joined_by_semicolons_come_back(rows: list[list[str]]) -> None:
    fields = ["; ".join(row) + ";" for row in rows]
    separate = label_separator(fields, known=())
    assert [[label for label in separate(field) if label] for field in fields] == rows


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfimage,labels,split\r\na.jpg,cat,train\r\nb.jpg,dog,val\r\n",
        b" Image , labels , SPLIT \n a.jpg , cat , train \n\n b.jpg , dog , val ",
        b"image;labels;split\na.jpg;cat;train\nb.jpg;dog;val\n",
        b"image\tlabels\tsplit\na.jpg\tcat\ttrain\nb.jpg\tdog\tval\n",
        b'"image","labels","split"\n"a.jpg","cat","train"\n"b.jpg","dog","val"\n',
        b"split,image,labels\ntrain,./a.jpg,cat\nval,b.jpg,dog\n",
        b"image,labels,split\n,,\na.jpg,cat,train\n ,,\nb.jpg,dog,val\n",
    ],
    ids=["bom-crlf", "spaces", "semicolons", "tabs", "quotes", "order", "blank-lines"],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, content: bytes) -> None:
    read = read_tag_file(table(tmp_path, content))
    lines = [(line.name, line.labels, line.split) for line in read.lines.values()]
    assert lines == [("a", ("cat",), "train"), ("b", ("dog",), "val")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"image,labels\n\xe9t\xe9.jpg,cat\n", r"not UTF-8 text \(byte 0xe9 at position 13\)"),
        ("image,labels\na,cat\n".encode("utf-16"), "not UTF-8"),
        (b"", "line 1: the header must be"),
        (b"name,tags\na,cat\n", "line 1: the header must be.*got 'name,tags'"),
        (b"image,labels,spilt\na,cat,train\n", "line 1: the header must be"),
        (b"image,labels\na,cat,dog\n", "line 2: 3 fields, but the header has 2"),
        (b"image,labels\na\n", "line 2: 1 fields"),
        (b'image,labels\na,"cat\n', "not CSV"),
        (b"image,labels,split\na,cat,\n", "line 2: no split for 'a'"),
        (b"image,labels\na.jpg,cat\nb,dog\na,dog\n", "line 4: 'a' is listed before, at .*line 2"),
        (b"image,labels\n../a.jpg,cat\n", "line 2: '../a.jpg' leaves the data folder"),
        (b"image,labels\n/tmp/a.jpg,cat\n", "leaves the data folder"),
        (b"image,labels\nC:\\a.jpg,cat\n", "leaves the data folder"),
        (b"image,labels\n,cat\n", "names nothing"),
        (b"image,labels\n", "it lists no image"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        read_tag_file(table(tmp_path, content))
    assert "tags.csv" in caught.value.problem
    assert caught.value.fix


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a": ["cat"]', "not JSON"),
        ('["a"]', "expected one object"),
        ('{"a": "cat"}', "'a' must have a list of labels, got 'cat'"),
        ('{"a": {}}', "'a' must have a list of labels"),
        ('{"a": [1]}', "'a' must have a list of labels"),
        ('{"a": ["cat"], "a": ["dog"]}', "entry 'a': 'a' is listed before"),
        ('{"a": ["cat"], "a.jpg": ["dog"]}', "'a.jpg' is listed before"),
        ('{"../a": ["cat"]}', "leaves the data folder"),
        ("{}", "it lists no image"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_tag_file(table(tmp_path, content, "tags.json"))


def test_a_table_without_any_label_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image has a label"):
        read_tag_file(table(tmp_path, "image,labels\na,\n")).classes()


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("images/a.jpg", ("a", ".jpg")),
        ("images\\s\\a.JPG", ("s/a", ".JPG")),
        ("./a.v2", ("a.v2", "")),
        ("images", ("images", "")),
    ],
)
def test_image_names(image: str, name: tuple[str, str]) -> None:
    assert image_name(image, Place(Path("here")), prefix="images") == name


def test_the_tables_of_the_readme(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "data" / "README.md").read_text()
    csv_table = readme.split("```csv\n")[1].split("```")[0]
    json_table = next(part for part in readme.split("`") if part.startswith("{"))
    expected = {"street/0001": ("traffic light", "bus"), "street/0002": ("bus",), "street/0003": ()}
    assert labels_of(table(tmp_path, csv_table)) == expected
    assert labels_of(table(tmp_path, json_table, "tags.json")) == {
        name: labels for name, labels in expected.items() if name != "street/0002"
    }
