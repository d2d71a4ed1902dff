"""Some random folders; `python tests/reliability/random_folders.py 0 10000 LOG` tries many."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from wsss.data.check import inspect_data
from wsss.data.images import EXTRA
from wsss.reporting import Silent

HERE = Path(__file__).parent
FOLDERS = 12
TRAINS = 1070
"""A folder on which train-cls works, so that what it chose is compared with its run.json."""


def test_no_folder_ends_in_a_traceback_or_a_hang(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("there is no fork")
    log = tmp_path / "log.jsonl"
    for first, count in ((0, FOLDERS), (TRAINS, 1)):
        command = [sys.executable, str(HERE / "random_folders.py"), str(first), str(count), str(log)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [row["fault"] for row in rows if "fault" in row] == []
    assert len(rows) == FOLDERS + 1
    assert rows[-1]["statuses"][-2:] == [0, 0], "this folder is trained on and labelled"


SEEN = (
    *("table-fields", "path-outside", "image-twice", "image-missing", "image-untagged", "name-twice"),
    *(
        "image-irregular",
        "image-empty",
        "image-unknown",
        "image-truncated",
        "image-broken",
        "mask-unreadable",
        "mask-unused",
    ),
    *("mask-format", "mask-size", "mask-class", "table-second", "split-alike", "name-form", "name-alike"),
    *("label-nothing", "class-alike", "class-cut", "class-unused", "folder-left-out", "link-lost"),
    *("file-ignored", "image-suffix", "image-16-bit", "image-cmyk", "image-alpha", "image-animated"),
    *(
        "image-small",
        "image-narrow",
        "image-copy",
        "mask-missing",
        "mask-turned",
        "mask-binary",
        "mask-tags",
        "mask-order",
    ),
)
"""Kinds of findings in the folder of oddities."""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of the names")
def test_what_is_found_in_the_folder_of_oddities(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("oddities", HERE / "oddities.py")
    assert spec is not None
    assert spec.loader is not None
    oddities = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oddities)
    root = tmp_path / "photos"
    not_made = oddities.write_oddities(root)
    try:
        found = inspect_data(root, Silent())
    finally:
        oddities.allow_removal(root)
    assert all(one.startswith("unreadable") for one in not_made)
    assert set(found.counts()) - {"folder-unreadable"} == set(SEEN)
    heic = [one.what for one in found.findings if "phone.HEIC" in one.what]
    if "HEIF" in EXTRA:  # it is read
        assert heic == []
    else:
        assert heic[0].endswith("(it is there, but files ending in .HEIC are not read)")
