"""`wsss data check`: what it prints to which stream, the list of findings, the exit status."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Any]


@pytest.fixture
def broken(tmp_path: Path, scenes: Path) -> Path:
    """The scenes, of which five images of the training split are empty and one mask belongs to another image."""
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    images, masks = sorted((root / "images").iterdir()), sorted((root / "masks").iterdir())
    for path in images[:5]:
        path.write_bytes(b"")
    masks[-1].write_bytes(b"no mask")
    return root


def test_a_good_folder(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    done = wsss("data", "check", scenes)
    assert (done.status, done.out) == (0, "")
    assert "32 images examined (train 24, val 8): 0 errors, 1 warning" in done.err
    assert "24 images of split 'train' are few: a network learns them by heart" in done.err
    assert "mend: add images" in done.err
    rows = [line.replace("│", " ").replace("┃", " ").split() for line in done.err.splitlines()]
    table = rows[rows.index(["class", "train", "val"]) + 2 :]
    tags = list(csv.reader((scenes / "tags.csv").read_text(encoding="utf-8").splitlines()))
    for name in (scenes / "classes.txt").read_text(encoding="utf-8").split():
        train, val = (sum(name in labels and split == one for _, labels, split in tags) for one in ("train", "val"))
        assert [name, str(train), str(val)] in table
    done = wsss("data", "check", scenes, "--split", "val", "-o", tmp_path / "list.csv")
    assert (done.status, done.out) == (0, f"{tmp_path / 'list.csv'}\n")
    assert "8 images examined (val 8)" in done.err
    assert (tmp_path / "list.csv").read_text(encoding="utf-8").split() == ["severity,kind,where,what,mend"]


def test_a_bad_folder(wsss: Program, broken: Path) -> None:
    done = wsss("data", "check", broken)
    problem, fix = done.error()
    assert done.status == 3
    assert problem == f"{broken}: 6 errors in the data set"
    assert fix.startswith(f"wsss data check {broken} -o LIST.csv")
    assert done.err.count("error image-empty: ") == 3
    assert "... and 2 more of image-empty" in done.err
    assert "error mask-unreadable: " in done.err
    assert any(line.replace("│", " ").split() == ["error", "image-empty", "5"] for line in done.err.splitlines())
    done = wsss("data", "check", broken, "--split", "val", "--no-masks")
    assert (done.status, done.out) == (0, "")


def test_the_list_and_json_have_everything(wsss: Program, tmp_path: Path, broken: Path) -> None:
    done = wsss("data", "check", broken, "-o", tmp_path / "list.csv", "--json")
    assert done.status == 3
    report = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert (report["data"], report["images"], report["splits"]) == (str(broken), 32, {"train": 24, "val": 8})
    assert (report["errors"], report["warnings"]) == (6, 1)
    assert report["kinds"] == {"image-empty": 5, "mask-unreadable": 1, "set-small": 1}
    names = (broken / "classes.txt").read_text(encoding="utf-8").split()
    table = (broken / "tags.csv").read_text(encoding="utf-8")
    assert report["classes"] == {name: table.count(name) for name in names}
    with (tmp_path / "list.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == report["findings"]
    assert all(finding["mend"] for finding in report["findings"])
    assert report["findings"][0]["what"] == "unreadable image (it is empty)"


def test_warnings_alone_leave_with_0(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    with (root / "classes.txt").open("a", encoding="utf-8") as file:
        file.write("\nwasp\n")
    done = wsss("data", "check", root, "--json")
    assert done.status == 0
    assert json.loads(done.out)["kinds"] == {"class-unused": 2, "set-small": 1}


def test_a_table_that_cannot_be_read(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    (root / "tags.csv").write_text("nonsense\n", encoding="utf-8")
    done = wsss("data", "check", root)
    assert done.status == 3
    assert "\n32 images examined (no split can be opened): 1 error, 0 warnings\n" in done.err


def test_saliency_and_tags_elsewhere(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    done = wsss("data", "check", scenes, "--saliency", tmp_path, "--json")
    assert done.status == 3
    assert json.loads(done.out)["kinds"] == {"saliency-missing": 32, "set-small": 1}
    done = wsss("data", "check", scenes, "--tags", tmp_path / "gone.csv", "--json")
    assert done.status == 3
    assert json.loads(done.out)["kinds"] == {"text-unreadable": 1}


def test_usage(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    done = wsss("data", "check", scenes, "--split", "trian")
    assert (done.status, "did you mean 'train'" in done.error()[0]) == (2, True)
    done = wsss("data", "check", scenes, "--tags-from", "nowhere")
    assert (done.status, "'data.tags_from' must be" in done.error()[0]) == (2, True)
    done = wsss("data", "check", tmp_path / "gone")
    assert (done.status, done.error()[0]) == (3, f"{tmp_path / 'gone'}: no such data folder")
    done = wsss("data")
    assert done.status == 2
    assert "Usage" in done.out + done.err
