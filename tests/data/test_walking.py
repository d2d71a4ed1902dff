"""Every file below a folder is listed, or left out for a reason that can be told."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data import walking
from wsss.data.check import inspect_data
from wsss.data.dataset import list_splits, open_data, open_unlabelled
from wsss.data.findings import BadData
from wsss.data.photographs import find_images
from wsss.data.readers.registry import find_reader
from wsss.data.walking import conventional, is_by_machines, is_folder, names_in, walk
from wsss.errors import DataError
from wsss.reporting import Silent

Noted = list[BadData]


def made(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@contextmanager
def refused(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    """The disk answers with an error where a folder of this name is listed; root may read every folder."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).rstrip("/").endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        yield


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "mine/1.jpg", "theirs/2.jpg")
    with refused(monkeypatch, "theirs"):
        with pytest.raises(DataError, match=r"theirs: this folder cannot be listed \(Permission denied\)"):
            open_unlabelled(tmp_path)
        noted: Noted = []
        found = find_images(tmp_path, note=noted.append)
    assert (found.files, found.tree.left_out) == ({"mine/1": "mine/1.jpg"}, {"theirs": "unreadable"})
    assert [error.findings[0].kind for error in noted] == ["folder-unreadable"]


def test_check_finds_a_folder_that_cannot_be_listed(folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(monkeypatch, "far"):
        inspection = inspect_data(folder_root, Silent())
    assert "folder-unreadable" in inspection.counts()
    assert any(one.where == str(folder_root / "street/far") for one in inspection.findings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_data_folder_behind_a_closed_one(tmp_path: Path) -> None:  # pragma: no cover
    (tmp_path / "closed" / "photos").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be listed"):
            find_reader(tmp_path / "closed" / "photos")
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_an_error_of_the_disk_is_no_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(path: Path) -> object:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(Path, "stat", stat)
    for ask in (is_folder, walking.is_file, find_reader):
        with pytest.raises(DataError, match="Input/output error"):
            ask(tmp_path / "photos")


def test_a_name_that_no_disk_can_hold_is_missing(tmp_path: Path) -> None:
    assert not walking.is_file(tmp_path / ("x" * 5000))
    assert not walking.is_file(tmp_path / "a\0b")
    made(tmp_path, "file")
    assert not is_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".thumbnails", "@__thumb", "Thumbs.db"]
)
def test_folders_of_machines_are_left_out_and_said(tmp_path: Path, folder: str) -> None:
    made(tmp_path, "a.jpg", f"{folder}/a.jpg/SYNOFILE_THUMB_M.jpg", f"b/{folder}/x.jpg", "b/c.jpg")
    noted: Noted = []
    found = find_images(tmp_path, note=noted.append)
    assert list(found.files) == ["a", "b/c"]
    assert [error.severity for error in noted] == ["warning"]
    assert str(tmp_path / folder) in noted[0].problem
    assert noted[0].problem.endswith("2 of them are left out")


@pytest.mark.parametrize("file", ["._a.jpg", "SYNOFILE_THUMB_M.jpg", "Thumbs.db", "desktop.ini", "ehthumbs.db"])
def test_files_of_machines_are_left_out(tmp_path: Path, file: str) -> None:
    found = find_images(made(tmp_path, "a.jpg", f"b/{file}"), note=lambda error: None)
    assert (list(found.files), found.tree.left_out) == (["a"], {f"b/{file}": "by machines"})


@pytest.mark.parametrize("name", ["eaDir", "recycle", "lost and found", "thumbs", "MACOSX", "my@eaDir"])
def test_folders_of_the_user_are_not_taken_for_those(name: str) -> None:
    assert not is_by_machines(name, folder=True)


def test_two_links_to_one_folder_are_both_followed(tmp_path: Path) -> None:
    made(tmp_path, "pool/1.jpg", "pool/2.jpg", "set/x")
    for link in ("train", "val"):
        (tmp_path / "set" / link).symlink_to(tmp_path / "pool")
    assert list(find_images(tmp_path / "set").files) == ["train/1", "train/2", "val/1", "val/2"]


def test_a_link_beside_its_folder_is_followed(tmp_path: Path) -> None:
    made(tmp_path, "a/1.jpg", "a/deep/2.jpg")
    (tmp_path / "b").symlink_to("a")
    assert list(find_images(tmp_path).files) == ["a/1", "a/deep/2", "b/1", "b/deep/2"]


def test_a_circle_is_cut_and_said(tmp_path: Path) -> None:
    made(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    noted: Noted = []
    found = find_images(tmp_path, note=noted.append)
    assert list(found.files) == ["a/1", "a/to_b/2", "b/2", "b/to_a/1"]
    assert found.tree.left_out == {"a/to_b/to_a": "circle", "b/to_a/to_b": "circle"}
    assert all("a link back to a folder" in error.problem for error in noted)


def test_links_to_links_end(tmp_path: Path) -> None:
    """Thirty folders, each with two links to the next: 2**30 paths."""
    for level in range(30):
        (tmp_path / str(level)).mkdir()
        for link in ("left", "right"):
            (tmp_path / str(level) / link).symlink_to(tmp_path / str(level + 1))
    made(tmp_path, "30/a.jpg")
    found = find_images(tmp_path / "0", note=lambda error: None)
    assert 0 < len(found.files) <= walking.MOST_VISITS
    assert "linked too often" in found.tree.left_out.values()


def test_a_deep_folder_needs_no_deep_stack(tmp_path: Path) -> None:
    subprocess.run(["mkdir", "-p", tmp_path / "/".join(["d"] * 1200)], check=True)
    left_out = walk(tmp_path).left_out
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's own removal calls itself for each level
    assert left_out == {}


@pytest.mark.parametrize("link", ["val", "v1.0", "my photos"])
def test_a_link_to_a_disk_that_is_not_mounted_is_said(tmp_path: Path, link: str) -> None:
    made(tmp_path, "a.jpg")
    (tmp_path / link).symlink_to("/not/mounted")
    noted: Noted = []
    find_images(tmp_path, note=noted.append)
    assert [(one.kind, one.where) for error in noted for one in error.findings] == [("link-lost", str(tmp_path / link))]


def test_a_lost_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    for link in ("a.jpg", "notes.txt"):
        (tmp_path / link).symlink_to("/not/mounted")
    found = find_images(tmp_path)
    assert (found.files, found.others, found.tree.left_out) == ({"a": "a.jpg"}, {"notes.txt"}, {})


def test_conventional_names_in_any_case(tmp_path: Path) -> None:
    made(tmp_path, "Tags.CSV", "Masks/a.png", "one/masks", "one/Masks")
    assert conventional(tmp_path, "tags.csv").name == "Tags.CSV"
    assert conventional(tmp_path, "masks").name == "Masks"
    assert conventional(tmp_path / "one", "masks").name == "masks"
    assert conventional(tmp_path / "one", "MASKS").name == "MASKS"  # one of two cannot be chosen
    assert names_in(tmp_path / "none") == ()


NAMES = st.sampled_from(["a", "B", ".h", "@eaDir", "lost+found", "masks", "labels", "é", "e\u0301", "x y", "val"])
FILES = st.sampled_from(
    ["a.jpg", "A.JPG", "a.png", "b.gif", "n.txt", ".h.png", "._a.jpg", "Thumbs.db", "manifest.json", "w\udce9.png"]
)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of files, and links from a name in a folder to another folder."""
    folders = draw(st.lists(st.lists(NAMES, max_size=3).map("/".join), min_size=1, max_size=5))
    files = [f"{folder}/{file}".lstrip("/") for folder in folders for file in draw(st.lists(FILES, max_size=4))]
    links = draw(st.lists(st.tuples(st.sampled_from(folders), st.sampled_from([*folders, "nowhere"])), max_size=3))
    return files, links


@settings(max_examples=60, deadline=None)
@given(trees())
def test_every_file_is_listed_or_left_out_for_a_reason(tree: tuple[list[str], list[tuple[str, str]]]) -> None:
    files, links = tree
    with tempfile.TemporaryDirectory() as name:
        root = made(Path(name), *files)
        for number, (place, target) in enumerate(links):
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / f"link{number}").symlink_to(root / target)
        found = find_images(root, skip=("masks",), note=lambda error: None)
        for place, _, inside in os.walk(root, followlinks=False):
            for file in inside:
                path = (Path(place) / file).relative_to(root).as_posix()
                reasons = [
                    path in found.files.values(),
                    path in found.others,
                    found.tree.why_left_out(path) is not None,
                ]
                assert sum(reasons) == 1, path


def test_a_photo_that_a_table_lists_in_a_folder_of_machines(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    write_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "@eaDir" / "b.jpg")
    (tmp_path / "tags.csv").write_text("image,labels\na,cat\n@eaDir/b.jpg,dog\n")
    findings = inspect_data(tmp_path, Silent()).findings
    assert [one.what for one in findings if one.kind == "image-missing"] == [
        f"@eaDir/b.jpg is not in {tmp_path} (@eaDir is left out: by machines)"
    ]


def test_a_data_folder_whose_names_are_in_another_case(folder_root: Path, voc_root: Path) -> None:
    (folder_root / "images").mkdir()
    for name in ("a.jpg", "b.png", "street"):
        (folder_root / name).rename(folder_root / "images" / name)
    for old, new in (("images", "Images"), ("tags.csv", "TAGS.csv")):
        (folder_root / old).rename(folder_root / new)
    assert len(open_data(folder_root, split="train")) == 3
    for old, new in (
        ("JPEGImages", "JpegImages"),
        ("ImageSets", "imagesets"),
        ("SegmentationClass", "segmentationclass"),
    ):
        (voc_root / old).rename(voc_root / new)
    tagged = open_data(voc_root, split="train")
    assert [tagged.has_truth(record) for record in tagged.records] == [False, True]


def test_copies_of_lists_that_macs_make_are_no_splits(voc_root: Path) -> None:
    (voc_root / "ImageSets" / "Segmentation" / "._train.txt").write_bytes(b"\0\5\x16\7")
    assert list_splits(voc_root) == ("train", "val")
