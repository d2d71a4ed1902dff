"""Tables of any name and columns, by value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wsss
from wsss.data.lessons import lessons
from wsss.data.records import TaggedSet
from wsss.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out


@pytest.fixture
def photos(tmp_path: Path, write_photo: Callable[..., Path]) -> Path:
    for name in ("a", "b", "c"):
        write_photo(tmp_path / f"{name}.jpg")
    return tmp_path


def opened(root: Path, text: str, name: str = "labels.csv", **reading: Any) -> TaggedSet:
    (root / name).write_text(text, encoding=reading.get("encoding", "utf-8"))
    return wsss.open_dataset(root, **reading).split()


def tags(tagged: TaggedSet) -> dict[str, list[str]]:
    return {record.name: [tagged.classes[tag] for tag in record.tags] for record in tagged.records}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("filename,cat,dog\na.jpg,1,0\nb.jpg,1,1\nc.jpg,0,0\n", "train.csv"),
        ("index,filename,cat,dog,day\n0,a.jpg,1,0,2020-01-02\n1,b,1.0,TRUE,x\n2,c,0,false,\n", "x.csv"),
        ("img;Tags\na;cat\nb;cat|dog\nc;\n", "x.csv"),
        ("PATH\tLabels\na\tcat\nb\tcat dog\nc\t\n", "x.tsv"),
        ("file,class,x\nb,dog,1\na,cat,1\nb,cat,2\nc,,3\nb,dog,4\n", "x.csv"),
        ("image,cat,dog\na,1,0\nb,1,1\nc,0,0\n", "tags.csv"),
        (
            '{"path":"a.jpg","labels":"cat"}\n{"path":"b.jpg","labels":["dog","cat"]}\n{"path":"c","labels":[]}',
            "x.jsonl",
        ),
        ('[{"img":"a","cat":1,"dog":0},{"img":"b","cat":true,"dog":1},{"img":"c","cat":0,"dog":0}]', "x.json"),
    ],
)
def test_tables_that_say_the_same(photos: Path, text: str, name: str) -> None:
    tagged = opened(photos, text, name)
    assert tagged.classes == ("cat", "dog")
    assert tags(tagged) == {"a": ["cat"], "b": ["cat", "dog"], "c": []}


def test_one_column_of_0_and_1_is_a_class(photos: Path) -> None:
    tagged = opened(photos, "filename,garbage\na.jpg,1\nb.jpg,0\nc.jpg,1\n")
    assert (tagged.classes, tags(tagged)) == (("garbage",), {"a": ["garbage"], "b": [], "c": ["garbage"]})


def test_another_encoding_is_told(photos: Path) -> None:
    opened(photos, "image,labels\na,café\n", "x.csv", encoding="latin-1")
    with pytest.raises(DataError, match="not UTF-8"):
        wsss.open_dataset(photos)
    assert wsss.open_dataset(photos, encoding="latin-1").classes == ("café",)


def test_two_tables_are_not_guessed(photos: Path) -> None:
    (photos / "one.csv").write_text("image,labels\na,cat\n")
    with pytest.raises(DataError, match=r"one\.csv, two\.csv") as caught:
        opened(photos, "image,labels\na,dog\nb,\nc,\n", "two.csv")
    assert "--tags" in caught.value.fix
    assert wsss.open_dataset(photos, tags=photos / "two.csv").classes == ("dog",)


CHEXPERT = "path,edema,mass\na,1,-1\nb,0,?\nc,,1\n"


@pytest.mark.parametrize(
    ("uncertain", "unlisted", "present", "unknown"),
    [
        ("0", "absent", [(0,), (), (1,)], [(), (1,), ()]),
        ("1", "absent", [(0, 1), (), (1,)], [(), (1,), ()]),
        ("drop", "absent", [(0,), (), (1,)], [(1,), (1,), ()]),
        ("drop", "unknown", [(0,), (), (1,)], [(1,), (1,), (0,)]),
    ],
)
def test_three_states_of_a_tag(
    photos: Path, uncertain: str, unlisted: str, present: list[Any], unknown: list[Any]
) -> None:
    tagged = opened(photos, CHEXPERT, uncertain=uncertain, unlisted=unlisted)
    assert [record.tags for record in tagged.records] == present
    assert [record.unknown for record in tagged.records] == unknown
    assert tagged.known(tagged.records[1]).tolist() == [True, False]


def test_minus_one_is_asked(photos: Path) -> None:
    with pytest.raises(DataError, match="-1 in the column 'mass'") as caught:
        opened(photos, CHEXPERT)
    assert "--uncertain" in caught.value.fix


def test_positive_only_tags_say_what_is_lost(photos: Path) -> None:
    tagged = opened(photos, "image,labels\na,cat\nb,dog\nc,cat;dog\n", unlisted="unknown")
    assert [record.unknown for record in tagged.records] == [(1,), (0,), ()]
    assert "is known to be without cat, dog" in next(lessons(tagged)).what
