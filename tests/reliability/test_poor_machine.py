"""Machines that lack what most have: a home folder, a locale, shared memory, locks of files."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsss.config import to_yaml
from wsss.outputs.lock import locked
from wsss.reporting import Silent
from wsss.training.start import train_classifier

SMALL_SHM = 'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
"""In a mount namespace of its own the shared memory of a container."""


def can_mount() -> bool:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SMALL_SHM.format(size="1m"), "sh", "true"], capture_output=True, check=False
    )
    return done.returncode == 0


def pipeline(tmp_path: Path, config: Path, scenes: Path, before: list[str], **variables: str) -> None:
    """All four commands in processes without any environment but what is given."""
    program = [*before, sys.executable, "-m", "wsss"]
    cls, seg, masks = (str(tmp_path / name) for name in ("cls", "seg", "masks"))
    for words in (
        ["data", "check", str(scenes)],
        ["train-cls", "-c", str(config), "-o", cls],
        ["train-seg", "-c", str(config), "--init", cls, "-o", seg],
        ["predict", seg, str(scenes), "--split", "val", "-o", masks],
        ["evaluate", masks, "--data", str(scenes), "--split", "val"],
    ):
        done = subprocess.run(
            [*program, *words],
            capture_output=True,
            timeout=300,
            check=False,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **variables},
            cwd=tmp_path,
        )
        assert done.returncode == 0, (words, done.stderr.decode("utf-8", "replace"))
    assert len([*(tmp_path / "masks" / "labels").iterdir()]) == 8


@pytest.fixture
def config(tmp_path: Path, tiny_config: Any) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(tiny_config(classify__epochs=1, segment__epochs=1, run__workers=2)), encoding="utf-8")
    return path


@pytest.mark.slow
def test_without_a_home_folder_and_a_locale(tmp_path: Path, config: Path, scenes: Path) -> None:
    pipeline(tmp_path, config, scenes, [], LC_ALL="C")


def in_a_container(size: str) -> list[str]:
    if shutil.which("unshare") is None or not can_mount():
        pytest.skip("no mount namespace can be made here: it takes root and unshare")
    return ["unshare", "-m", "sh", "-c", SMALL_SHM.format(size=size), "sh"]


@pytest.mark.slow
def test_a_container(tmp_path: Path, config: Path, scenes: Path) -> None:
    """64 MiB of shared memory, and a home folder that may not be written: root may write anywhere but below a file."""
    (tmp_path / "file").write_text("")
    home = str(tmp_path / "file" / "home")
    pipeline(tmp_path, config, scenes, in_a_container("64m"), LC_ALL="POSIX", HOME=home)


@pytest.mark.slow
def test_too_little_shared_memory_is_named(tmp_path: Path, config: Path) -> None:
    """So little that no loader process can hand over a batch."""
    done = subprocess.run(
        [*in_a_container("100k"), sys.executable, "-m", "wsss", "train-cls", "-c", str(config), "-o", "cls"],
        capture_output=True,
        timeout=120,
        check=False,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 4
    assert "shared memory (/dev/shm)" in done.stderr
    assert "fix:   run the same command again with --workers 0" in done.stderr.splitlines()


def test_a_file_system_without_locks(tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training works and says that nothing keeps two processes apart."""

    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    train_classifier(tiny_config(classify__epochs=1), tmp_path / "run", Saying())
    assert (tmp_path / "run" / "last.pt").is_file()
    assert sum("lies on a disk without locks" in text for text in said) == 1
    with locked(tmp_path / "run", said.append):
        pass
