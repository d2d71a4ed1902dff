"""A folder of label maps: which files are made again, removed or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.config import Config
from wsss.data.images import MADE
from wsss.data.masks import read_mask, write_mask
from wsss.data.records import Record
from wsss.errors import UsageError
from wsss.outputs.folder import SUFFIXES, LabelFolder, Source, held_folder
from wsss.outputs.journal import read_journal
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent

SETTINGS = {"kind": "pseudo", "classes": ["cat", "dog"], "scales": [224]}


class Remarks(Silent):
    """A reporter that stores the messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def source(name: str, digest: str = "00", origin: str = "/photos", tags: tuple[int, ...] = (0,)) -> Source:
    return Source(name=name, origin=f"{origin}/{name}.jpg", digest=digest, tags=tags)


@contextmanager
def held(
    out: Path, remarks: Silent | None = None, *, overwrite: bool = False, **settings: Any
) -> Iterator[LabelFolder]:
    with held_folder(out, SETTINGS | settings, Config(), remarks or Silent(), overwrite=overwrite) as folder:
        yield folder


def make(
    out: Path,
    *sources: Source,
    overwrite: bool = False,
    scores: bool = False,
    remarks: Silent | None = None,
    **settings: Any,
) -> list[str]:
    """Write the files of unfinished images; returns their names."""
    with held(out, remarks, overwrite=overwrite, **settings) as folder:
        parts = {"scores": [one.name for one in sources]} if scores else {}
        todo = folder.begin(sources, remarks or Silent(), parts=parts, overwrite=overwrite)
        for one in sources:
            if one.name in todo:
                label_HW = np.full((2, 3), len(one.digest), dtype=np.uint8)
                folder.write(one, label_HW, scores=b"scores" if scores else None, overlay=b"picture")
        folder.complete(sources)
    return sorted(todo)


def files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.parent != out)


def test_every_part_is_left_out_where_photographs_are_listed() -> None:
    assert tuple(SUFFIXES) == MADE


def test_what_is_written_and_counted(tmp_path: Path) -> None:
    assert make(tmp_path, source("a"), source("deep/b")) == ["a", "deep/b"]
    assert files(tmp_path) == ["labels/a.png", "labels/deep/b.png", "overlays/a.jpg", "overlays/deep/b.jpg"]
    assert (read_mask(tmp_path / "labels" / "a.png") == 2).all()
    entry = read_journal(tmp_path)["deep/b"]
    assert entry.pixels == {2: 6}
    assert entry.files.keys() == {"labels/deep/b.png", "overlays/deep/b.jpg"}
    for path, digest in entry.files.items():
        assert hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() == digest
    assert read_manifest(tmp_path)["counts"] == {"images": 2, "background": 0, "foreground": 12, "ignored": 0}
    assert read_manifest(tmp_path)["classes"] == ["cat", "dog"]


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    make(tmp_path, source("a"), source("b"))
    before = (tmp_path / "labels" / "a.png").stat().st_mtime_ns
    assert make(tmp_path, source("a"), source("b"), source("c")) == ["c"]
    assert (tmp_path / "labels" / "a.png").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"digest": "1111"}, {"tags": (1,)}])
def test_a_change_removes_every_file_of_the_image(tmp_path: Path, change: dict[str, Any]) -> None:
    make(tmp_path, source("a"), source("b"), scores=True)
    assert "scores/a.npz" in files(tmp_path)
    remarks = Remarks()
    assert make(tmp_path, replace(source("a"), **change), source("b"), remarks=remarks) == ["a"]
    assert remarks.said == ["1 image or its tags have changed (a); made again"]
    assert "scores/a.npz" not in files(tmp_path)
    assert "scores/b.npz" in files(tmp_path)


def test_overwrite_removes_every_file_too(tmp_path: Path) -> None:
    """Scores of one checkpoint must not stay beside labels of another."""
    make(tmp_path, source("a"), source("b"), scores=True)
    assert make(tmp_path, source("a"), overwrite=True, checkpoint_sha256="other") == ["a"]
    assert files(tmp_path) == ["labels/a.png", "overlays/a.jpg"]
    assert list(read_journal(tmp_path)) == ["a"]


def test_what_other_settings_made_is_removed_with_a_remark(tmp_path: Path) -> None:
    make(tmp_path, source("a"), source("b"), source("c"))
    remarks = Remarks()
    make(tmp_path, source("a"), overwrite=True, remarks=remarks, scales=[320])
    assert remarks.said == ["2 label maps of other settings removed (b, c)"]


def test_the_same_settings_keep_images_of_another_set(tmp_path: Path) -> None:
    make(tmp_path, source("a"), source("b"))
    remarks = Remarks()
    assert make(tmp_path, source("a"), overwrite=True, remarks=remarks) == ["a"]
    assert "labels/b.png" in files(tmp_path)
    assert remarks.said == [
        f"{tmp_path} holds 1 more label maps, of images that are not in this set (b); they stay, and are not counted"
    ]


def test_images_whose_journal_line_is_damaged_are_made_again_with_a_remark(tmp_path: Path) -> None:
    make(tmp_path, source("a"), source("b"))
    journal, remarks = tmp_path / "journal.jsonl", Remarks()
    first, second = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + b"#" + second)
    assert make(tmp_path, source("a"), source("b"), remarks=remarks) == ["b"]
    end = "cut short or damaged; an image that has no other line is made again"
    assert remarks.said == [f"{journal}: line 2 {end}"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    make(tmp_path, source("a"))
    with pytest.raises(UsageError, match=r"made with other settings: scales \(was \[224\], now \[320\]\)"):
        make(tmp_path, source("a"), scales=[320])


def test_a_file_that_is_gone_is_made_again(tmp_path: Path) -> None:
    make(tmp_path, source("a"), source("b"))
    (tmp_path / "overlays" / "a.jpg").unlink()
    remarks = Remarks()
    assert make(tmp_path, source("a"), source("b"), remarks=remarks) == ["a"]
    assert remarks.said == ["files of 1 image are gone or damaged (a); made again"]


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", None])
def test_a_damaged_label_map_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    make(tmp_path, source("a"), source("b"))
    path = tmp_path / "labels" / "b.png"
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    remarks = Remarks()
    assert make(tmp_path, source("a"), source("b"), remarks=remarks) == ["b"]
    assert remarks.said == ["files of 1 image are gone or damaged (b); made again"]
    assert read_mask(path).tolist() == [[2] * 3] * 2


def test_a_damaged_picture_is_made_again(tmp_path: Path) -> None:
    make(tmp_path, source("a"))
    (tmp_path / "overlays" / "a.jpg").write_bytes(b"other")
    assert make(tmp_path, source("a")) == ["a"]


def test_a_label_map_that_was_corrected_by_hand_stays(tmp_path: Path) -> None:
    make(tmp_path, source("a"), source("b"))
    path = tmp_path / "labels" / "b.png"
    write_mask(path, np.ones((2, 3), np.uint8))
    remarks = Remarks()
    assert make(tmp_path, source("a"), source("b"), remarks=remarks) == []
    assert remarks.said == ["changed since they were made, and kept: 1 label map (labels/b.png)"]
    assert read_mask(path).tolist() == [[1] * 3] * 2


def test_scores_that_are_asked_for_later(tmp_path: Path) -> None:
    make(tmp_path, source("a"))
    assert make(tmp_path, source("a"), scores=True) == ["a"]
    assert make(tmp_path, source("a"), scores=True) == []
    assert make(tmp_path, source("a")) == []


def test_a_part_that_is_asked_for_later_costs_no_other_part(tmp_path: Path) -> None:
    """Neither where the process is killed before it writes the part."""
    make(tmp_path, source("a"), source("b"))
    before = files(tmp_path)
    for written in (False, True):
        with held(tmp_path) as folder:
            parts = {"scores": ["a", "b"]}
            assert folder.begin([source("a"), source("b")], Silent(), parts=parts, overwrite=False) == {"a", "b"}
            if written:
                folder.write(source("a"), np.zeros((2, 3), np.uint8), scores=b"later")
        assert files(tmp_path) == sorted([*before, *["scores/a.npz"] * written])
    assert (read_mask(tmp_path / "labels" / "a.png") == 2).all()
    entry = read_journal(tmp_path)["a"]
    assert entry.files.keys() == {"labels/a.png", "overlays/a.jpg", "scores/a.npz"}
    assert entry.pixels == {2: 6}
    for path, digest in entry.files.items():
        assert hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() == digest


def test_files_without_a_journal_line_are_made_again(tmp_path: Path) -> None:
    """The process was killed between the last file and the line, or an earlier version made the folder."""
    make(tmp_path, source("a"), source("b"))
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(lines[0])
    assert make(tmp_path, source("a"), source("b")) == ["b"]
    (tmp_path / "journal.jsonl").unlink()
    remarks = Remarks()
    assert make(tmp_path, source("a"), source("b"), remarks=remarks) == ["a", "b"]
    assert "has no journal" in remarks.said[0]


def test_equal_names_of_another_folder(tmp_path: Path) -> None:
    """They are refused if no image of the first folder is left; a set that was moved and partly changed is not."""
    make(tmp_path, source("a"), source("b"))
    others = [source("a", "1111", "/other"), source("b", "1111", "/other")]
    with pytest.raises(UsageError, match=r"'a' was /photos/a.jpg, now it is /other/a.jpg"):
        make(tmp_path, *others)
    with pytest.raises(UsageError, match="other images of the same names"):
        make(tmp_path, others[0], source("c"))
    assert make(tmp_path, others[0], source("b", "00", "/other")) == ["a"]
    assert make(tmp_path, *others, overwrite=True) == ["a", "b"]


def test_a_set_that_was_moved_may_have_new_tags_and_layers(tmp_path: Path) -> None:
    make(tmp_path, source("a", "00+11"), source("b", "00+11"))
    moved = [source("a", "00+22", "/other"), source("b", "00+11", "/other", (1,))]
    assert make(tmp_path, *moved) == ["a", "b"]


def test_one_image_that_is_the_same_does_not_make_a_set_the_same(tmp_path: Path) -> None:
    make(tmp_path, *(source(name) for name in "abc"))
    others = [source("a", "1111", "/other"), source("b", "1111", "/other"), source("c", "00", "/other")]
    with pytest.raises(UsageError, match="other images of the same names"):
        make(tmp_path, *others)


def test_a_refused_set_leaves_a_complete_folder_complete(tmp_path: Path) -> None:
    make(tmp_path, source("a"))
    with pytest.raises(UsageError):
        make(tmp_path, source("a", "1111", "/other"))
    assert read_manifest(tmp_path)["counts"]["images"] == 1


@pytest.mark.parametrize("journal", [True, False])
def test_overwrite_removes_what_has_no_journal_line(tmp_path: Path, journal: bool) -> None:
    """A kill between a file and its line, or an earlier version: the new manifest would claim the file."""
    make(tmp_path, source("a"), source("b"))
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(lines[0])
    if not journal:
        (tmp_path / "journal.jsonl").unlink()
    make(tmp_path, source("a"), overwrite=True, scales=[320])
    assert files(tmp_path) == ["labels/a.png", "overlays/a.jpg"]


def test_overwrite_removes_no_file_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "drawn.png").write_bytes(b"by hand")
    make(tmp_path, source("a"), overwrite=True)
    assert (tmp_path / "labels" / "drawn.png").read_bytes() == b"by hand"


def test_the_manifest_says_when_a_folder_is_incomplete(tmp_path: Path) -> None:
    make(tmp_path, source("a"))
    with held(tmp_path) as folder:
        folder.begin([source("a"), source("b")], Silent(), overwrite=False)
    assert read_manifest(tmp_path)["counts"] == {}
    assert make(tmp_path, source("a"), source("b")) == ["b"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(UsageError, match="in use by this process"), held(tmp_path):
        pass


def test_a_source_is_the_bytes_of_all_that_is_read(tmp_path: Path) -> None:
    image, saliency = tmp_path / "a.bmp", tmp_path / "saliency" / "a.png"
    saliency.parent.mkdir()
    image.write_bytes(b"one")
    saliency.write_bytes(b"grey")
    record = Record(name="a", image=image, tags=(1,))
    first = Source.of(record, saliency.parent)
    assert Source.of(record, saliency.parent) == first
    assert Source.of(replace(record, digest=first.digest.split("+")[0]), saliency.parent) == first
    saliency.write_bytes(b"gray")
    second = Source.of(record, saliency.parent)
    image.write_bytes(b"two")
    assert len({first.digest, second.digest, Source.of(record, saliency.parent).digest, Source.of(record).digest}) == 4
