"""Files are complete or absent, also on full and read-only disks, and one process at a time writes to a folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from wsss import files
from wsss.config import Config, to_yaml
from wsss.data.masks import read_mask, write_mask
from wsss.errors import UsageError
from wsss.files import TEMPORARY, DiskError, files_below, sweep, sync_folder, whole, write_whole
from wsss.models.checkpoint import read_checkpoint
from wsss.outputs.journal import read_journal
from wsss.outputs.lock import NO_LOCKS, locked, refuse_held
from wsss.outputs.pictures import write_jpeg

Disk = Callable[[str], Path]


def quiet(text: str) -> None:
    raise AssertionError(f"unexpected remark: {text}")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# Files


def test_a_file_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        content = Path(f"/proc/self/fd/{descriptor}").resolve()
        done.append(f"sync {content.read_bytes().decode()}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"rename to {target.name}")
        assert TEMPORARY.fullmatch(path.name)
        assert path.parent == target.parent
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_whole(tmp_path / "deep" / "a.txt", "bée")
    assert done == ["sync bée", "rename to a.txt"]
    assert names(tmp_path) == {"deep", "deep/a.txt"}


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), whole(path) as file:  # noqa: PT012
            file.write(b"new")
            file.flush()
            raise error
        assert path.read_text() == "old"
        assert names(tmp_path) == {"a.txt"}


def test_names_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    name = "ü" * 125 + ".png"  # 254 bytes
    write_mask(tmp_path / name, np.zeros((2, 3), dtype=np.uint8))
    assert names(tmp_path) == {name}


def test_sweeping_takes_temporary_files_alone(tmp_path: Path) -> None:
    kept = {"a.tmp", ".hidden", ".notes.tmp", "labels", "labels/a.png"}
    for name in (*sorted(kept), "labels/.a.png.4711000002.tmp", ".last.pt.4711.tmp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name == "labels" else path.write_text("x")
    sweep(tmp_path)
    assert names(tmp_path) == kept


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in it would be passed over: old label maps that a new manifest claims."""
    (tmp_path / "out" / "closed").mkdir(parents=True)
    (tmp_path / "out" / "a.png").write_text("x")
    assert list(files_below(tmp_path / "none")) == []
    assert list(files_below(tmp_path)) == [tmp_path / "out" / "a.png"]

    def refused(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path)

    plain = os.scandir
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DiskError, match=r"closed: Permission denied"):
        sweep(tmp_path)


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda folder: folder / ("x" * 300), "shorten the names"),
        (lambda folder: folder / "file" / "labels", "choose another folder: a part of this path is a file"),
    ],
)
def test_the_remedy_fits_the_error(tmp_path: Path, make: Callable[[Path], Path], fix: str) -> None:
    """A path that cannot be is no fault of the disk."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError) as caught:
        write_whole(make(tmp_path) / "a.png", b"")
    assert caught.value.fix == f"{fix}, then run the same command again"


def test_a_disk_without_folder_syncs_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(DiskError, match="Input/output error"):
        sync_folder(tmp_path)


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """``disk("size=1m")`` mounts a disk in memory, or remounts it with other options."""
    point = tmp_path / "disk"
    point.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", f"remount,{options}" if mounted else options, "tmpfs", str(point)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 and not mounted:
            pytest.skip(f"a disk cannot be mounted here ({done.stderr.strip()}); run as root to test full disks")
        assert done.returncode == 0, done.stderr
        mounted = True
        return point

    yield mount
    if mounted:
        subprocess.run(["umount", str(point)], check=True)


def torch_save(path: Path) -> None:
    with whole(path) as file:
        torch.save({"a": torch.zeros(200_000)}, file)


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_whole(path, "a" * 200_000),
    "mask": lambda path: write_mask(path, np.random.default_rng(0).integers(0, 255, (500, 500), dtype=np.uint8)),
    "jpeg": lambda path: write_jpeg(path, np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8)),
    "checkpoint": torch_save,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_on_a_full_disk(disk: Disk, kind: str) -> None:
    root = disk("size=64k")
    path = root / "out"
    path.write_text("old")
    with pytest.raises(DiskError, match=f"^{path}: No space left on device") as caught:
        WRITERS[kind](path)
    assert caught.value.exit_status == 4
    assert caught.value.fix == "free some space there, then run the same command again"
    assert path.read_text() == "old"
    assert names(root) == {"out"}
    disk("size=2m")
    WRITERS[kind](path)
    assert path.stat().st_size > 64 * 1024


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_on_a_disk_that_cannot_be_written(disk: Disk, kind: str) -> None:
    root = disk("size=2m")
    disk("ro")
    with pytest.raises(DiskError, match="Read-only file system") as caught:
        WRITERS[kind](root / "out")
    assert caught.value.fix.startswith("choose a folder on a disk that can be written")
    assert names(root) == set()


def plan(path: Path, config: Config) -> Path:
    path.write_text(to_yaml(config))
    return path


def test_a_checkpoint_meets_a_full_disk(tmp_path: Path, tiny_config: Any, warm: Any, disk: Disk) -> None:
    config = plan(tmp_path / "config.yaml", tiny_config(classify__validate_every=2))
    whole_run = tmp_path / "whole"
    warm.run("train-cls", "-c", config, "-o", whole_run)
    run = disk(f"size={(whole_run / 'last.pt').stat().st_size * 5 // 4}") / "run"
    forked = warm.start("train-cls", "-c", config, "-o", run)
    assert forked.wait() == 4, forked.error
    error, fix = forked.error_and_fix
    assert error == f"{run}/last.pt: No space left on device"
    assert "free some space there, then " in fix
    assert f"--resume {run}" in fix
    assert "Traceback" not in forked.error
    assert read_checkpoint(run / "last.pt")["training"]["step"] == 0
    assert not list(run.glob(".*"))

    still_full = warm.start("train-cls", "--resume", run)
    assert still_full.wait() == 4, still_full.error
    disk("size=8m")
    warm.run("train-cls", "--resume", run)
    ours, theirs = (read_checkpoint(folder / "last.pt") for folder in (run, whole_run))
    assert ours["training"]["step"] == theirs["training"]["step"] == 6
    assert all(torch.equal(value, theirs["network"][name]) for name, value in ours["network"].items())


def test_pseudo_labels_and_predictions_meet_a_full_disk(
    tmp_path: Path, tiny_config: Any, scenes: Path, warm: Any, disk: Disk
) -> None:
    config = plan(tmp_path / "config.yaml", tiny_config(segment__epochs=1))
    run = tmp_path / "run"
    warm.run("train-seg", "-c", config, "-o", run)
    for name, command in {
        "pseudo": ["make-pseudo", run, "-c", config, "--save-scores", "-o"],
        "predict": ["predict", run, scenes / "images", "-c", config, "-o"],
    }.items():
        warm.run(*command, tmp_path / name)
        out = disk("size=100k") / name
        forked = warm.start(*command, out)
        assert forked.wait() == 4, forked.error
        error, fix = forked.error_and_fix
        assert error.startswith(f"{out}/")
        assert error.endswith(": No space left on device")
        assert fix == "free some space there, then run the same command again"
        assert "Traceback" not in forked.error
        for path in out.rglob("*"):  # some labels, all of them complete, and nothing else
            assert (
                path.is_dir()
                or path.read_bytes() == (tmp_path / name / path.relative_to(out)).read_bytes()
                or (path.name == "manifest.json" and json.loads(path.read_text())["counts"] == {})
                or path.name == "journal.jsonl"
            ), path
        assert read_journal(out).items() <= read_journal(tmp_path / name).items()
        assert list(out.glob("labels/*.png"))
        disk("size=8m")
        warm.run(*command, out)
        assert names(out) == names(tmp_path / name)
        for path in out.rglob("*.*"):
            if path.name != "journal.jsonl":
                assert path.read_bytes() == (tmp_path / name / path.relative_to(out)).read_bytes(), path
        assert read_journal(out) == read_journal(tmp_path / name)  # its lines come in the order of the threads
        shutil.rmtree(out)


def test_a_folder_that_cannot_be_written(tmp_path: Path, tiny_config: Any, warm: Any, disk: Disk) -> None:
    config = plan(tmp_path / "config.yaml", tiny_config(classify__epochs=1))
    run = tmp_path / "run"
    warm.run("train-cls", "-c", config, "-o", run)
    root = disk("size=8m")
    shutil.copytree(run, root / "run")
    disk("ro")
    for command in (
        ["train-cls", "-c", config, "-o", root / "new"],
        ["train-cls", "--resume", root / "run"],
        ["make-pseudo", run, "-c", config, "-o", root / "new"],
    ):
        forked = warm.start(*command)
        assert forked.wait() == 4, forked.error
        error, fix = forked.error_and_fix
        assert error.startswith(f"{root}/")
        assert error.endswith(": Read-only file system")
        assert fix.startswith("choose a folder on a disk that can be written")
        assert "Traceback" not in forked.error
    assert names(root / "run") == names(run)
    disk("rw")
    warm.run("make-pseudo", root / "run", "-c", config, "-o", root / "new")
    assert len(list((root / "new" / "labels").iterdir())) == 24


# Locks


def test_one_process_at_a_time_writes_a_run(tmp_path: Path, tiny_config: Any, warm: Any) -> None:
    config = plan(tmp_path / "config.yaml", tiny_config(run__workers=1, classify__epochs=500))
    run = tmp_path / "run"
    first = warm.start("train-cls", "-c", config, "-o", run)
    first.wait_for(run / "last.pt")
    for command in (["-c", config, "-o", run], ["--resume", run]):
        second = warm.start("train-cls", *command)
        assert second.wait() == 2, second.error
        assert second.error_and_fix == [
            f"{run} is in use by process {first.pid} on {platform.node()}",
            "wait until that ends, or choose another -o",
        ]
    first.send(signal.SIGKILL)  # not its loader process, which continues for a while
    assert first.wait() == -signal.SIGKILL
    assert (run / ".lock").is_file()
    (run / "metrics.jsonl").unlink(missing_ok=True)
    third = warm.start("train-cls", "--resume", run)
    third.wait_for(run / "metrics.jsonl")
    third.send(signal.SIGTERM)
    assert third.wait() == 75, third.error
    assert not (run / ".lock").exists()


def test_one_process_at_a_time_writes_label_maps(tmp_path: Path, tiny_config: Any, scenes: Path, warm: Any) -> None:
    config = plan(tmp_path / "config.yaml", tiny_config(segment__epochs=1))
    run, out = tmp_path / "run", tmp_path / "out"
    warm.run("train-seg", "-c", config, "-o", run)
    with locked(out, quiet):
        for command in (["make-pseudo", run], ["predict", run, scenes / "images"]):
            forked = warm.start(*command, "-c", config, "-o", out)
            assert forked.wait() == 2, forked.error
            assert forked.error_and_fix[0] == f"{out} is in use by process {os.getpid()} on {platform.node()}"
        assert names(out) == {".lock"}
    assert names(out) == set()
    warm.run("predict", run, scenes / "images", "-c", config, "-o", out)
    assert all((read_mask(path) <= 2).all() for path in (out / "labels").iterdir())


def test_a_process_locks_a_folder_once(tmp_path: Path) -> None:
    with locked(tmp_path / "a", quiet), locked(tmp_path / "b", quiet):
        with pytest.raises(UsageError, match="in use by this process"), locked(tmp_path / "b" / ".." / "a", quiet):
            raise AssertionError
        refuse_held(tmp_path / "a")  # by others
    with suppress(ZeroDivisionError), locked(tmp_path / "a", quiet):
        _ = 1 / 0
    with locked(tmp_path / "a", quiet):
        pass
    assert names(tmp_path) == {"a", "b"}


def test_a_lock_whose_owner_is_dead(tmp_path: Path) -> None:
    for content in ('{"pid": 1, "host": "elsewhere"}', "", "nonsense"):
        (tmp_path / ".lock").write_text(content)
        refuse_held(tmp_path)
        with locked(tmp_path, quiet):
            assert json.loads((tmp_path / ".lock").read_text()) == {"pid": os.getpid(), "host": platform.node()}


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    said: list[str] = []
    with locked(tmp_path, said.append):
        assert said == [f"{tmp_path} lies on a disk without locks: make sure that no other process writes there"]
    assert names(tmp_path) == set()


def test_a_disk_where_files_change_their_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.samestat", lambda first, second: False)
    with pytest.raises(DiskError, match="cannot be locked"), locked(tmp_path, quiet):
        pass


def test_a_lock_removed_between_opening_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that was removed would not stop other processes."""
    plain, opened = os.open, []

    def open_late(path: Any, *arguments: Any) -> int:
        descriptor = plain(path, *arguments)
        opened.append(path)
        if len(opened) == 1:
            Path(path).unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_late)
    with locked(tmp_path, quiet):
        assert (tmp_path / ".lock").is_file()
    assert len(opened) == 2


def test_an_error_of_the_disk_survives_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DiskError is raised even if the writer ignores the error of the disk or raises another one."""

    def save(file: IO[bytes]) -> None:
        with suppress(OSError):
            file.write(b"a" * 2**20)
        raise RuntimeError("unexpected pos 64 vs 0")

    def refuse(raw: files._Raw, data: Any) -> int:
        raw.refusal = OSError(errno.ENOSPC, "No space left on device")
        raise raw.refusal

    monkeypatch.setattr(files._Raw, "write", refuse)
    with pytest.raises(DiskError, match="No space left on device"), whole(tmp_path / "a") as file:
        save(file)
    assert names(tmp_path) == set()
