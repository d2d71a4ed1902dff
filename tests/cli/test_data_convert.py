"""`wsss data info|formats|convert`, through the program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.data.dataset import list_splits, open_data

Program = Callable[..., Any]
FORMATS = Path(__file__).parents[1] / "formats"


def content(root: Path, **reading: Any) -> dict[str, Any]:
    """Classes, and split, tags and mask of each image."""
    found: dict[str, Any] = {}
    for split in list_splits(root):
        tagged = open_data(root, split=split)
        found["classes"] = tagged.classes
        for record in tagged.records:
            mask = tagged.truth(record)
            found[record.name] = (split, record.tags, None if mask is None else mask.tolist())
    return found


def test_a_folder_gives_the_same_again(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    done = wsss("data", "convert", scenes, "-o", tmp_path / "out", "--to", "folder", "--masks")
    assert done.status == 0, done.err
    assert done.out.strip() == str(tmp_path / "out")
    assert content(tmp_path / "out") == content(scenes)
    assert all(path.is_symlink() for path in (tmp_path / "out" / "images").iterdir())


@pytest.mark.parametrize("name", ["class_folders", "voc_xml_flat"])
def test_other_formats_become_folders(wsss: Program, tmp_path: Path, name: str) -> None:
    done = wsss("data", "convert", FORMATS / name, "-o", tmp_path / "out", "--to", "folder", "--copy")
    assert done.status == 0, done.err
    assert content(tmp_path / "out") == content(FORMATS / name)
    assert not any(path.is_symlink() for path in (tmp_path / "out" / "images").rglob("*"))


def test_an_output_is_never_overwritten(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    done = wsss("data", "convert", scenes, "-o", tmp_path / "out", "--to", "folder")
    assert done.status == 2
    assert "not empty" in done.err
    done = wsss("data", "convert", scenes, "-o", tmp_path / "other", "--to", "foldre")
    assert done.status == 2
    assert "folder" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_info_tells_the_format_and_counts(wsss: Program) -> None:
    done = wsss("data", "info", FORMATS / "voc_xml_flat", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["format"] == "voc-flat"
    assert "XML" in told["why"]
    assert told["splits"]["train"]["tags_per_image"] == {"0": 1, "2": 1}
    assert told["together"] == [["Helmet", "helmet", 1]]
    assert np.sum(list(told["sizes"].values())) == 3
    done = wsss("data", "info", FORMATS / "voc_xml_flat")
    assert done.out == ""
    assert "voc-flat" in done.err


def test_formats_are_listed(wsss: Program) -> None:
    told = json.loads(wsss("data", "formats", "--json").out)
    assert {"voc", "folder", "class-folders", "histology", "voc-flat"} <= set(told["read"])
    assert "folder" in told["written"]
    assert wsss("data", "formats").status == 0


TREES = sorted(path.parent for path in FORMATS.rglob("EXPECTED.json") if path.parent.name != "outputs")
TOLD = {"table_excel": ["--columns", "image=Datei,labels=Klassen,split=Aufteilung"]}
"""Options of trees whose EXPECTED.json tells them in words only."""


@pytest.mark.parametrize("root", TREES, ids=lambda root: root.relative_to(FORMATS).as_posix())
def test_every_format_becomes_a_folder_with_the_same_content(wsss: Program, tmp_path: Path, root: Path) -> None:
    expected = json.loads((root / "EXPECTED.json").read_text())
    words = expected.get("options", TOLD.get(root.name, []))
    done = wsss("data", "convert", root, "-o", tmp_path / "out", "--to", "folder", "--masks", *words)
    if "no data set there" in done.err:
        pytest.skip("no reader yet")
    if "refuse" in expected:
        assert done.status == 3
        assert [*tmp_path.iterdir()] == []
        return
    assert done.status == 0, done.err
    found = content(tmp_path / "out")
    assert list(found.pop("classes")) == expected["classes"]
    for path, image in expected["images"].items():
        split, tags, mask = found.pop(path.rpartition(":")[2] if ":" in path else path.rpartition(".")[0])
        assert (split, {expected["classes"][tag] for tag in tags}) == (image["split"], {*image["tags"]})
        rows = image.get("mask", {}).get("rows")
        assert mask == (rows and [[255 if digit == "." else int(digit) for digit in row] for row in rows])
    assert found == {}
