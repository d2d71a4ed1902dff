"""Class names that mean no class, that a spreadsheet changed, or whose numbers are sorted as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.data.findings import Place
from wsss.data.near_names import NearNames
from wsss.data.odd_names import odd_names

PLACE = Place(Path("classes.txt"))


@pytest.mark.parametrize(
    ("classes", "kind", "what"),
    [
        (["1", "10", "2"], "class-order", "'10' comes before '2'"),
        (["class1", "class10", "class2"], "class-order", "'class10' comes before 'class2'"),
        (["bg", "cat"], "class-no-object", "'bg' may mean the background"),
        (["Nothing", "cat"], "class-no-object", "'Nothing' may mean the background"),
        (["cat", "void"], "class-no-object", "'void' may mean pixels that are ignored"),
        (["cat", "Don't care"], "class-no-object", '"Don\'t care" may mean pixels that are ignored'),
        (["1.00E+05", "cat"], "class-spreadsheet", "'1.00E+05' may be a number that a spreadsheet has shortened"),
        (["1e5", "cat"], "class-spreadsheet", "'1e5' may be a number that a spreadsheet has shortened"),
        (["01-Mar", "cat"], "class-spreadsheet", "'01-Mar' may be a date"),
        (["Sep-02", "cat"], "class-spreadsheet", "'Sep-02' may be a date"),
        (["2024-03-01 00:00:00", "cat"], "class-spreadsheet", "may be a date"),
        (["#NAME?", "cat"], "class-spreadsheet", "may be an error or a truth value"),
        (["1.0", "2.0"], "class-spreadsheet", "2 classes: '1.0', '2.0' may be a whole number"),
    ],
)
def test_an_odd_name_is_told(classes: list[str], kind: str, what: str) -> None:
    (finding,) = odd_names(classes, PLACE)
    assert finding.kind == kind
    assert what in finding.what
    assert finding.mend


@pytest.mark.parametrize(
    "classes",
    [
        ["1", "2", "10"],
        ["cat", "dog"],
        ["dog", "cat", "a10", "a2"],  # not sorted at all
        ["b-1", "b-2"],
        ["may", "march"],
        ["E. coli 12", "type 2.0"],
        ["borders", "unknown pleasures"],
    ],
)
def test_usual_names_are_not(classes: list[str]) -> None:
    assert list(odd_names(classes, PLACE)) == []


def test_a_name_that_a_spreadsheet_changed_is_found() -> None:
    assert NearNames(["1e5.jpg", "x.jpg"]).ask("100000.jpg") == (
        " (did you mean '1e5.jpg'? they are one number in two spellings, as after a spreadsheet)"
    )
    assert NearNames(["x.jpg"]).ask("1-Mar.jpg") == " (a date that a spreadsheet made of a name?)"
