"""Label fields in other notations, and words that say that there is no label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.findings import BadData
from wsss.data.readers.label_fields import is_cut, is_nothing, listed_labels
from wsss.data.readers.tag_table import read_tag_file
from wsss.errors import DataError

NAMES = st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), max_size=4)


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_lists_of_python_and_json_come_back(names: list[str]) -> None:
    for field in (repr(names), repr(tuple(names)), json.dumps(names), json.dumps(names, ensure_ascii=False)):
        assert listed_labels(field) == names
    assert set(listed_labels(repr(set(names))) or ()) == set(names)
    assert set(listed_labels(repr(frozenset(names))) or ()) == set(names)


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("['horse', 'person']", ["horse", "person"]),
        (str(np.array(["horse", "person"])), ["horse", "person"]),
        (repr(np.array(["horse", "person"])), ["horse", "person"]),
        (repr(np.array(["horse"], dtype=object)), ["horse"]),
        ("Index(['horse', 'person'], dtype='object')", ["horse", "person"]),
        ("{horse,person}", ["horse", "person"]),
        ("[horse, traffic light]", ["horse", "traffic light"]),
        ("[horse]", ["horse"]),
        ('["it\'s", "b]"]', ["it's", "b]"]),
        ("('horse',)", ["horse"]),
        ("['horse', None]", ["horse", "None"]),
        ("[nan]", ["nan"]),
        ("[u'horse']", ["horse"]),
        ("[]", []),
        ("[ ]", []),
        ("()", []),
        ("{}", []),
        ("set()", []),
        ("frozenset()", []),
        ("array([], dtype=object)", []),
        ("'horse'", ["horse"]),
        ("'horse', 'person'", ["horse", "person"]),
        ("'horse;person'", ["horse", "person"]),
        ("[Steller's jay, bus]", ["Steller's jay", "bus"]),
        ("[don't]", ["don't"]),
        ("[3, 17]", ["3", "17"]),
    ],
)
def test_notations_that_are_understood(field: str, labels: list[str]) -> None:
    assert listed_labels(field) == labels


@pytest.mark.parametrize(
    "field",
    [
        "horse",
        "horse;person",
        "bird (small)",
        "(small)",
        "(a) bird (b)",
        "[a] and [b]",
        "Steller's jay",
        "don't, won't",
        "",
    ],
)
def test_fields_that_are_no_list(field: str) -> None:
    assert listed_labels(field) is None


@pytest.mark.parametrize(
    "field", ["[['cat'], ['dog']]", "{'cat': 1}", '[{"name": "cat"}]', "['cat', ['dog']]", "[cat:1]"]
)
def test_lists_that_are_refused(field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cat"):
        listed_labels(field)
    quoted = field.replace('"', '""')
    (tmp_path / "tags.csv").write_text(f'image,labels\na,"{quoted}"\n')
    with pytest.raises(DataError, match=r"tags\.csv line 2: the labels .* are no list of names"):
        read_tag_file(tmp_path / "tags.csv")


def labels_of(
    tmp_path: Path, text: str, known: tuple[str, ...] = (), name: str = "tags.csv"
) -> tuple[list[object], str]:
    """The labels of each line, and what was noted."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    noted: list[BadData] = []
    table = read_tag_file(tmp_path / name, known=known, note=noted.append)
    return [line.labels for line in table.lines.values()], "".join(error.problem for error in noted)


def test_lists_beside_plain_labels_choose_no_separator(tmp_path: Path) -> None:
    text = "image,labels\na,\"['horse', 'person']\"\nb,cat dog\nc,[]\nd,cat\ne,dog\n"
    assert labels_of(tmp_path, text) == ([("horse", "person"), ("cat", "dog"), (), ("cat",), ("dog",)], "")


def test_a_known_class_in_brackets_stays(tmp_path: Path) -> None:
    assert labels_of(tmp_path, "image,labels\na,[cat]\n", known=("[cat]",)) == ([("[cat]",)], "")


@pytest.mark.parametrize(
    "word",
    [
        "nan",
        "NaN",
        "None",
        "NULL",
        "N/A",
        "na",
        "-",
        "unknown",
        "<NA>",
        "#N/A",
        "''",
        '""""""',
        "no label",
        "None ",
        "—",
    ],
)
def test_words_that_say_nothing_are_no_label(tmp_path: Path, word: str) -> None:
    labels, said = labels_of(tmp_path, f"image,labels\na,cat;dog\nb,{word}\nc,\n")
    assert labels == [("cat", "dog"), (), ()]
    assert "''" in word or '"' in word or "is read as no label" in said


def test_such_a_word_beside_a_label_and_in_json(tmp_path: Path) -> None:
    said = "'nan' in 1 line is read as no label; list it in classes.txt if it is a class"
    labels, noted = labels_of(tmp_path, "image,labels\na,cat;nan\n")
    assert (labels, noted) == ([("cat",)], f"{tmp_path / 'tags.csv'}: {said}")
    labels, noted = labels_of(tmp_path, '{"a": ["cat", "nan"]}', name="tags.json")
    assert (labels, noted) == ([("cat",)], f"{tmp_path / 'tags.json'}: {said}")


def test_a_class_file_makes_a_class_of_it(tmp_path: Path) -> None:
    assert labels_of(tmp_path, "image,labels\na,nan\nb,none\n", known=("nan", "None")) == ([("nan",), ("none",)], "")


@pytest.mark.parametrize("name", ["nana", "nancy", "nullipore", "nonesuch", "no", "n", "unknown bird", "0", "false"])
def test_names_that_are_names(name: str) -> None:
    assert not is_nothing(name)


@pytest.mark.parametrize(
    ("label", "cut"),
    [
        ("['horse'", True),
        ("'person']", True),
        ('"cat', True),
        ("cat)", True),
        ("bird (small)", False),
        ("dogs'", False),
    ],
)
def test_half_of_a_pair(label: str, cut: bool) -> None:
    assert is_cut(label) == cut
