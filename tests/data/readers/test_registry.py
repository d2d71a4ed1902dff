from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wsss.config import Reading
from wsss.data.dataset import open_data
from wsss.data.readers.registry import READERS, find_reader, recognise
from wsss.errors import DataError


def test_readers_are_listed_by_their_names() -> None:
    assert all(name == reader.name for name, reader in READERS.items())


def test_a_reader_says_why_it_recognises_a_folder(folder_root: Path, voc_root: Path) -> None:
    assert recognise(folder_root) == {"folder": "a table of tags, tags.csv"}
    assert recognise(voc_root) == {"voc": "JPEGImages and ImageSets"}
    assert recognise(folder_root / "street") == {}
    assert recognise(folder_root / "street", Reading(tags=folder_root / "tags.csv")) == {
        "folder": "a table of tags, tags.csv"
    }


def test_voc_wins_over_its_table_by_a_rule(voc_root: Path) -> None:
    assert READERS["folder"].sniff(voc_root, Reading()) is not None
    assert find_reader(voc_root).name == "voc"
    assert find_reader(voc_root, Reading(format="folder")).name == "folder"
    assert open_data(voc_root, split="train").mask_folder == voc_root / "SegmentationClass"


def test_a_folder_of_two_formats_is_refused(folder_root: Path) -> None:
    other = replace(READERS["folder"], name="other", sniff=lambda root, tags: "a file other.json")
    with pytest.raises(DataError, match=r"several data formats: .*folder \(a table .*other \(a file other") as caught:
        find_reader(folder_root, readers={**READERS, "other": other})
    assert caught.value.fix == "--format folder   or   --format other"
    winner = replace(other, wins_over=("folder",))
    assert find_reader(folder_root, readers={**READERS, "other": winner}) is winner
    assert find_reader(folder_root, Reading(format="folder"), readers={**READERS, "other": other}).name == "folder"
