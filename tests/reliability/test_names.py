"""Names that are no UTF-8, of the images and of all folders, where the streams are ASCII."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsss.config import to_yaml
from wsss.outputs.manifest import read_making

NO_UTF8 = os.fsdecode(b"\xe9")


@pytest.fixture
def odd_scenes(scenes: Path, tmp_path: Path) -> Path:
    """The scenes in a folder whose name is no UTF-8."""
    folder = tmp_path / f"scenes{NO_UTF8}-é"
    try:
        shutil.copytree(scenes, folder)
    except OSError:
        pytest.skip("the file system takes names of UTF-8 only")
    return folder


def ascii_program(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "wsss", *map(str, arguments)],
        capture_output=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    done.stderr.decode("ascii")
    return done


def test_every_command_takes_them(odd_scenes: Path, tmp_path: Path, tiny_config: Any, warm: Any) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(tiny_config(data__root=odd_scenes, segment__epochs=1)), encoding="utf-8")
    run, out = tmp_path / f"run{NO_UTF8}", tmp_path / f"out{NO_UTF8}"
    warm.run("train-seg", "-c", config, "-o", run)
    photos = tmp_path / "photos"
    photos.mkdir()
    image = next(path for path in odd_scenes.rglob("*.jpg"))
    for name in (NO_UTF8, "猫", "\x1b[31m"):
        shutil.copy(image, photos / f"{name}.jpg")
    done = ascii_program("predict", run, photos, "-o", out)
    assert done.stdout == os.fsencode(out) + b"\n"
    assert (out / "labels" / f"{NO_UTF8}.png").is_file()
    labels = tmp_path / f"labels{NO_UTF8}"
    made = ascii_program("make-pseudo", run, "--data", odd_scenes, "-o", labels, "--json")
    assert json.loads(made.stdout)["output"] == str(labels)
    assert read_making(labels).kind == "pseudo"
    ascii_program("evaluate", labels, "--data", odd_scenes, "--split", "train")
    listed = tmp_path / "list.csv"
    ascii_program("data", "check", odd_scenes, "-o", listed)
    listed.read_text(encoding="utf-8")
