"""The journal: reading entries back, cut lines, removals, several writers."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.outputs.journal import JOURNAL, Entry, Journal, read_journal


def entry(name: str, source: str = "5a") -> Entry:
    return Entry(
        name=name,
        origin=f"/photos/{name}.jpg",
        source=source,
        tags=(0, 3),
        settings="c0ffee",
        pixels={0: 10, 4: 3, 255: 1},
        files={f"labels/{name}.png": "ab" * 32},
    )


def add(folder: Path, *entries: Entry, file: str = JOURNAL) -> None:
    with Journal(folder / file) as journal:
        for one in entries:
            journal.add(one)


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    add(tmp_path, entry("a"), entry("deep/b"))
    add(tmp_path, entry("c"))
    assert read_journal(tmp_path) == {name: entry(name) for name in ("a", "deep/b", "c")}
    assert len((tmp_path / JOURNAL).read_bytes().splitlines()) == 3


def test_the_last_line_of_a_name_counts_and_a_removal_takes_it_out(tmp_path: Path) -> None:
    add(tmp_path, entry("a", "00"), entry("b"), entry("a", "11"))
    assert read_journal(tmp_path)["a"].source == "11"
    with Journal(tmp_path / JOURNAL) as journal:
        journal.remove(["a", "c"])
    assert list(read_journal(tmp_path)) == ["b"]
    add(tmp_path, entry("a", "22"))
    assert read_journal(tmp_path)["a"].source == "22"


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == {}


@pytest.mark.parametrize("name", ["caf\udce9", "Ünïcode", 'quote"\\', "new\nline", "\U0001f98a"])
def test_names_of_any_bytes(tmp_path: Path, name: str) -> None:
    add(tmp_path, entry(name))
    assert read_journal(tmp_path) == {name: entry(name)}
    assert (tmp_path / JOURNAL).read_bytes().isascii()


def test_a_journal_cut_anywhere_loses_its_last_line_at_most(tmp_path: Path) -> None:
    """A kill or a power cut can leave it like this; the next entry begins on a new line."""
    names = ["a", "b", "c"]
    add(tmp_path, *map(entry, names))
    content = (tmp_path / JOURNAL).read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        (tmp_path / JOURNAL).write_bytes(content[:cut])
        whole = sum(end <= cut + 1 for end in ends)  # a line is complete without its line feed
        assert list(read_journal(tmp_path)) == names[:whole]
        add(tmp_path, entry("d"))
        assert list(read_journal(tmp_path)) == [*names[:whole], "d"]


@given(st.binary(max_size=200))
def test_damaged_lines_are_left_out(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("journal")
    (folder / JOURNAL).write_bytes(noise)
    add(folder, entry("a"))
    assert read_journal(folder)["a"] == entry("a")


@pytest.mark.parametrize(
    "line", ["[]", "3", "null", '{"name": "a"}', '{"removed": true}', '{"name": "a", "pixels": 3}']
)
def test_lines_that_are_no_entries(tmp_path: Path, line: str) -> None:
    (tmp_path / JOURNAL).write_text(line + "\n")
    assert read_journal(tmp_path) == {}


def test_journals_of_several_writers_are_read_together(tmp_path: Path) -> None:
    """Each process has its own file; concatenating the files gives the same entries."""
    add(tmp_path, entry("a"), entry("b"), file="journal.0-of-2.jsonl")
    add(tmp_path, entry("c"), file="journal.1-of-2.jsonl")
    both = read_journal(tmp_path)
    assert set(both) == {"a", "b", "c"}
    parts = sorted(tmp_path.glob("journal.*-of-2.jsonl"))
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / JOURNAL).write_bytes(b"".join(part.read_bytes() for part in parts))
    assert read_journal(merged) == both


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL) as journal:
        threads = [
            threading.Thread(target=lambda i=i: [journal.add(entry(f"{i}-{k}")) for k in range(50)]) for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    assert len({json.loads(line)["name"] for line in lines}) == 400


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    said: list[str] = []
    add(tmp_path, entry("a"), entry("b"), entry("c"))
    assert list(read_journal(tmp_path, said.append)) == ["a", "b", "c"]
    assert said == []
    journal = tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][:20] + b"\n\n" + lines[2])
    assert list(read_journal(tmp_path, said.append)) == ["a", "c"]
    journal.write_bytes(lines[0] + b"\0\n" + lines[1][:20])
    assert list(read_journal(tmp_path, said.append)) == ["a"]
    end = "cut short or damaged; an image that has no other line is made again"
    assert said == [f"{journal}: line 2 {end}", f"{journal}: 2 lines (the first is 2) {end}"]
