from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.class_names import joined_labels, misspelt_labels, one_slip
from wsss.data.readers.tag_table import TagFile, read_tag_file

WORDS = st.text("abc", max_size=4)


def table(tmp_path: Path, *fields: str) -> TagFile:
    """A table whose line 2 has the first field, and so on."""
    path = tmp_path / "tags.csv"
    path.write_text("image,labels\n" + "".join(f"p{number},{field}\n" for number, field in enumerate(fields)))
    return read_tag_file(path)


def test_one_comma_joins_the_labels_of_all_other_lines(tmp_path: Path) -> None:
    (found,) = joined_labels(table(tmp_path, "horse", "horse person", "cat", "horse person", '"cat, dog"'))
    assert (found.kind, found.severity, found.place.line) == ("class-joined", "warning", 3)
    assert found.what == (
        "'horse person' is one class, 'horse' another; did you mean 'horse;person'?"
        " (the ',' in line 6 makes ',' the separator of every line)"
    )


@pytest.mark.parametrize(
    "fields",
    [
        ("horse", "horse person", "person"),  # white space separates
        ("bear", "teddy bear;bed", "teddy bear"),  # stands beside another label, so it was separated
        ("traffic light", "bus;car"),  # none of its words is a class
        ("horse", "horse person", "person;horse"),  # each is: refused when the table is read
    ],
)
def test_names_of_several_words_that_are_meant(tmp_path: Path, fields: tuple[str, ...]) -> None:
    assert list(joined_labels(table(tmp_path, *fields))) == []


@pytest.mark.parametrize("slip", ["hrose", "hose", "horsse", "house", "Hrose", "hor_ses"])
def test_a_rare_name_one_slip_from_a_frequent_one(tmp_path: Path, slip: str) -> None:
    (found,) = misspelt_labels(table(tmp_path, *["horse"] * 20, slip, slip))
    assert (found.kind, found.place.line) == ("class-alike", 22)
    assert found.what == f"'{slip}' (2 images) or 'horse' (20)?"


@pytest.mark.parametrize(
    ("often", "other", "seldom"),
    [(19, "hrose", 2), (9, "hrose", 1), (40, "hrose", 3), (40, "hrsoes", 1), (40, "Horse", 1), (40, "cow", 1)],
)
def test_names_that_are_two(tmp_path: Path, often: int, other: str, seldom: int) -> None:
    assert list(misspelt_labels(table(tmp_path, *["horse"] * often, *[other] * seldom))) == []


def test_numbered_names_are_two(tmp_path: Path) -> None:
    assert list(misspelt_labels(table(tmp_path, *["type1"] * 40, "type2", "type"))) == []


def slips(name: str) -> set[str]:
    """Every name that one slip makes of another, from the letters a to d."""
    cuts = [(name[:at], name[at:]) for at in range(len(name) + 1)]
    left_out = {head + tail[1:] for head, tail in cuts if tail}
    added = {head + letter + tail for head, tail in cuts for letter in "abcd"}
    another = {head + letter + tail[1:] for head, tail in cuts if tail for letter in "abcd"}
    exchanged = {head + tail[1] + tail[0] + tail[2:] for head, tail in cuts if len(tail) > 1}
    return (left_out | added | another | exchanged) - {name}


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS)
def test_one_slip_is_what_one_slip_makes(first: str, second: str) -> None:
    assert one_slip(first, second) == one_slip(second, first) == (second in slips(first))


@settings(max_examples=30, deadline=None)
@given(WORDS)
def test_every_slip_is_one(name: str) -> None:
    assert all(one_slip(name, other) for other in slips(name))
