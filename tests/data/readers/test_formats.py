"""Every format: a tiny tree with the quirks of real exports, and what it must be read as (EXPECTED.json in it)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.main import get_command

import wsss
from wsss.cli.main import app
from wsss.data.dataset import Dataset
from wsss.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out

FORMATS = Path(__file__).parents[2] / "formats"
NOT_READ = ("outputs",)
"""What writers must give."""
TREES = sorted(path.parent for path in FORMATS.rglob("EXPECTED.json") if path.parent.name not in NOT_READ)
TOLD = {"table_excel": ["--columns", "image=Datei,labels=Klassen,split=Aufteilung"]}
"""Options of trees whose EXPECTED.json tells them in words only."""


def options(words: list[str]) -> dict[str, Any]:
    """Options of the command line as keys of the Python interface."""
    known = {flag: one.name for one in get_command(app).commands["data"].commands["check"].params for flag in one.opts}  # type: ignore[attr-defined]
    names = [known[word] for word in words[::2]]
    lists = ("classes", "none", "ignore", "keep_class", "columns")
    values = [value.split(",") if name in lists else value for name, value in zip(names, words[1::2], strict=True)]
    return {"keep" if name == "keep_class" else name: value for name, value in zip(names, values, strict=True)}


def mask_of(expected: dict[str, Any]) -> NDArray[np.uint8]:
    rows = [[255 if digit == "." else int(digit) for digit in row] for row in expected["rows"]]
    return np.array(rows, np.uint8).reshape(expected["size"])


def read(root: Path, words: list[str]) -> Dataset:
    return wsss.open_dataset(root, **options(words))


def check(dataset: Dataset, root: Path, expected: dict[str, Any]) -> None:
    assert list(dataset.classes) == expected["classes"]
    found = {}
    for split in dataset.splits:
        tagged = dataset.split(split)
        assert list(tagged.classes) == expected["classes"]
        for record in tagged.records:
            path = record.image.relative_to(root).as_posix()
            found[path] = {"split": split, "tags": [tagged.classes[tag] for tag in record.tags]}
            want = expected["images"].get(path, {})
            mask = tagged.truth(record)
            assert tagged.has_truth(record) == (mask is not None)
            if "mask" in want:
                assert mask is not None
                np.testing.assert_array_equal(mask, mask_of(want["mask"]), err_msg=path)
            else:
                assert mask is None, path
    want = {
        path: {"split": image["split"], "tags": sorted(image["tags"], key=expected["classes"].index)}
        for path, image in expected["images"].items()
    }
    assert found == want


@pytest.mark.parametrize("root", TREES, ids=lambda root: root.relative_to(FORMATS).as_posix())
def test_a_tree_is_read_as_expected(root: Path) -> None:
    expected = json.loads((root / "EXPECTED.json").read_text())
    words = expected.get("options", TOLD.get(root.name, []))
    if "refuse" in expected:
        with pytest.raises(DataError) as caught:
            read(root, words).records()
        assert str(caught.value)
    else:
        check(read(root, words), root, expected)
    for key, other in expected.items():
        if key.startswith("with "):
            check(read(root, key.removeprefix("with ").split()), root, {**expected, **other})
