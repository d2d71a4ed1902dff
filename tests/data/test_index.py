from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.data import index, index_file
from wsss.data.dataset import open_data, open_unlabelled
from wsss.data.entries import ENTRY, Entries, Fault, file_stamp
from wsss.data.facts import examine_image, image_digest
from wsss.data.images import UnreadableImage, read_content
from wsss.data.index import Scan, keep_readable, keep_readable_records, scan_images, too_many_broken
from wsss.data.index_file import index_path, load_index, save_index
from wsss.data.records import Record, Records, TaggedSet
from wsss.data.threads import Budget
from wsss.errors import DataError
from wsss.reporting import Silent

SOME = Record(name="p0", image=Path("p0.jpg"), tags=(0,))


def photo_set(root: Path, count: int) -> TaggedSet:
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for k in range(count):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(root / f"p{k}.jpg")
    records = tuple(Record(name=f"p{k}", image=root / f"p{k}.jpg", tags=(0,)) for k in range(count))
    return TaggedSet(root=root, split="all", classes=("cat",), records=records)


def why_unreadable(path: Path) -> str | None:
    """What is wrong with a broken image file; None for a good one."""
    try:
        examine_image(read_content(path), path)
    except UnreadableImage as error:
        return error.reason
    return None


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_a_good_set_is_kept_as_it_is(tmp_path: Path) -> None:
    tagged = photo_set(tmp_path, 5)
    kept, broken = keep_readable(tagged)
    assert broken == ()
    assert {record.size for record in kept.records} == {(64, 96)}
    assert [record.digest for record in kept.records] == [image_digest(record.read()) for record in tagged.records]
    assert replace(kept, records=[replace(record, size=None, digest=None) for record in kept.records]) == tagged


def test_broken_images_are_left_out_and_named(tmp_path: Path) -> None:
    tagged = photo_set(tmp_path, 8)
    cut(tmp_path / "p2.jpg", 0.8)
    (tmp_path / "p5.jpg").write_bytes(b"")
    (tmp_path / "p6.jpg").unlink()
    kept, broken = keep_readable(tagged, limit=0.5)
    assert [record.name for record in kept.records] == ["p0", "p1", "p3", "p4", "p7"]
    assert [message.split(":")[0] for message in broken] == ["p2", "p5", "p6"]
    assert "truncated" in broken[0]


def test_too_many_broken_images_are_an_error(tmp_path: Path) -> None:
    tagged = photo_set(tmp_path, 8)
    for k in range(4):
        cut(tmp_path / f"p{k}.jpg", 0.5)
    assert len(keep_readable(tagged, limit=0.5)[1]) == 4
    with pytest.raises(DataError, match=r"4 of 8 images are unreadable \(p0: .*; p1: .*; p2: [^;]*\) \(fix") as caught:
        keep_readable(tagged, limit=0.49)
    assert caught.value.fix == f"--set data.bad_limit=0.51  # skips them; wsss data check {tmp_path} names every one"
    assert len(keep_readable(tagged, limit=0.51)[1]) == 4


def test_one_broken_image_stops_nothing(tmp_path: Path) -> None:
    tagged = photo_set(tmp_path, 8)
    cut(tmp_path / "p3.jpg", 0.5)
    assert len(keep_readable(tagged)[0]) == 7
    with pytest.raises(DataError, match="1 of 8"):
        keep_readable(tagged, limit=0.0)
    cut(tmp_path / "p4.jpg", 0.5)
    with pytest.raises(DataError, match="2 of 8"):
        keep_readable(tagged)


@given(st.integers(2, 3000).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count - 1))))
@settings(max_examples=200, deadline=None)
def test_the_limit_that_is_proposed_lets_them_pass(counts: tuple[int, int]) -> None:
    count, broken = counts
    tagged = TaggedSet(root=Path("photos"), split="all", classes=("cat",), records=(SOME,) * count)
    found = re.search(r"bad_limit=(\S+)", too_many_broken(tagged, ["p0: why"] * broken).fix)
    assert found is not None
    assert broken <= float(found[1]) * count <= broken + 0.01 * count + 1e-9
    assert float(found[1]) <= 1


def test_a_set_of_broken_images_alone_is_an_error(tmp_path: Path) -> None:
    tagged = photo_set(tmp_path, 1)
    cut(tmp_path / "p0.jpg", 0.5)
    with pytest.raises(DataError, match="1 of 1") as caught:
        keep_readable(tagged, limit=1.0)
    assert caught.value.fix == f"wsss data check {tmp_path}  # names every one"


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_kind_cut_short_is_noticed(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a.{suffix}"
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels_HW3).convert(mode).save(path)
    assert why_unreadable(path) is None
    cut(path, 0.9)
    assert why_unreadable(path) is not None


@pytest.mark.parametrize("kind", [{"progressive": True}, {"mode": "CMYK"}])
def test_every_jpeg_cut_short_is_noticed(tmp_path: Path, kind: dict[str, str]) -> None:
    path = tmp_path / "a.jpg"
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels_HW3).convert(kind.pop("mode", "RGB")).save(path, **kind)
    assert why_unreadable(path) is None
    cut(path, 0.9)
    assert why_unreadable(path) is not None


def test_broken_headers_are_reasons_and_no_bugs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        content = bytearray(whole)
        content[int(rng.integers(8, len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        refused += why_unreadable(path) is not None
    assert refused > 100


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test alone; files count as unchanged from their first nanosecond on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "FINE", -1)
    monkeypatch.setattr(index, "COARSE", -1)
    monkeypatch.setattr(index, "_said", set())
    return tmp_path / "cache"


class Said(Silent):
    """Keeps remarks and progress."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.bars: list[tuple[str, int, int]] = []
        self.advanced = 0

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self.bars.append((what, total, done))

    def advance(self, count: int = 1, note: str = "") -> None:
        self.advanced += count

    def say(self, text: str) -> None:
        self.remarks.append(text)


def examined(tagged: TaggedSet) -> tuple[int, tuple[str, ...]]:
    """How many images a scan opens, and its verdicts."""
    reporter = Said()
    broken = scan_images(tagged.records, reporter).broken()
    return reporter.advanced, broken


OPENS = """
import sys
from pathlib import Path
from wsss.data.index import keep_readable_records
from wsss.data.dataset import open_unlabelled
root, opened = sys.argv[1], []
records = open_unlabelled(Path(root))
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and root in str(args[0]) else None)
kept, broken = keep_readable_records(records)
print(len(opened), len(kept), len(broken), kept[0].size, kept[0].digest)
"""


def test_a_second_start_opens_no_image(cache: Path, tmp_path: Path) -> None:
    """In processes that count what they open; as root nothing is unreadable."""
    photo_set(tmp_path / "photos", 20)
    cut(tmp_path / "photos" / "p7.jpg", 0.7)
    time.sleep(0.1)  # longer than ``FINE``
    command = [sys.executable, "-c", OPENS, str(tmp_path / "photos")]
    first, second = (subprocess.run(command, capture_output=True, check=True, text=True).stdout for _ in range(2))
    assert first.startswith("20 19 1 (64, 96) ")
    assert second == first.replace("20", "0", 1)


def test_the_facts_are_those_of_the_examination(cache: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos").mkdir()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 4), dtype=np.uint8))
    photo.save(tmp_path / "photos" / "a.png", exif=exif)
    photo.convert("CMYK").save(tmp_path / "photos" / "b.jpg", exif=exif)
    photo.save(tmp_path / "photos" / "c.tif", save_all=True, append_images=[photo])
    records = open_unlabelled(tmp_path / "photos")
    expected = [examine_image(record.read(), record.image) for record in records]
    assert [facts.turn for facts in expected] == [6, 6, 1]
    assert [facts.frames for facts in expected] == [1, 1, 2]
    for _ in range(2):
        scan = scan_images(records)
        assert [scan.facts(k) for k in range(3)] == expected
        assert [(one.size, one.digest) for one in scan.readable()] == [(one.size, one.digest) for one in expected]
        assert scan.sizes() == [one.size for one in expected]


def test_verdicts_are_kept_word_by_word(cache: Path, tmp_path: Path) -> None:
    tagged = photo_set(tmp_path / "photos", 4)
    cut(tmp_path / "photos" / "p1.jpg", 0.5)
    (tmp_path / "photos" / "p3.jpg").write_bytes(b"GIF89a and so on")
    first, second = examined(tagged), examined(tagged)
    assert first == (4, second[1])
    assert second[0] == 0
    assert "truncated" in second[1][0]
    assert "a GIF" in second[1][1]
    findings = []
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            scan_images(tagged.records).facts(3)
        findings.append((caught.value.problem, caught.value.findings))  # type: ignore[attr-defined]
    assert findings[0] == findings[1]


def test_a_changed_file_is_opened_again(cache: Path, tmp_path: Path) -> None:
    """Also one of the same length and modification time, as after cp -p: the system sets the change time."""
    tagged = photo_set(tmp_path / "photos", 3)
    path = tmp_path / "photos" / "p1.jpg"
    assert examined(tagged)[0] == 3
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-30:-2] = bytes(28)
    time.sleep(0.02)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert examined(tagged)[0] == 1
    assert examined(tagged)[0] == 0
    time.sleep(0.02)
    path.unlink()
    shutil.copy(tmp_path / "photos" / "p2.jpg", path)
    assert examined(tagged)[0] == 1
    twin, same = scan_images(tagged.records).readable()[1:]
    assert twin.digest == same.digest


def test_a_file_changed_just_before_the_scan_is_not_kept(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A second change within the resolution of its times would not be noticed."""
    tagged = photo_set(tmp_path / "photos", 3)
    monkeypatch.setattr(index, "FINE", 10**12)
    assert [examined(tagged)[0] for _ in range(2)] == [3, 3]
    monkeypatch.setattr(index, "FINE", -1)
    assert [examined(tagged)[0] for _ in range(2)] == [3, 0]


def test_a_file_changed_during_the_scan_is_not_kept(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    tagged = photo_set(tmp_path / "photos", 2)

    def slow(content: bytes, where: Path) -> Any:
        if where.stem == "p0":
            os.utime(where)
        return examine_image(content, where)

    monkeypatch.setattr(index, "examine_image", slow)
    time.sleep(0.02)
    assert [examined(tagged)[0] for _ in range(2)] == [2, 1]


def test_what_may_pass_is_not_kept(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A file that is missing, a disk that fails, memory that does not suffice."""
    tagged = photo_set(tmp_path / "photos", 3)
    moved = (tmp_path / "photos" / "p0.jpg").rename(tmp_path / "p0.jpg")
    monkeypatch.setattr(index, "examine_image", out_of_memory)
    assert examined(tagged) == (3, ("p0: no such file", "p1: MemoryError", "p2: MemoryError"))
    monkeypatch.setattr(index, "examine_image", examine_image)
    moved.rename(tmp_path / "photos" / "p0.jpg")
    assert examined(tagged) == (3, ())


def out_of_memory(content: bytes, where: Path) -> Any:
    from wsss.data.images import explained

    raise explained(where, MemoryError()) from MemoryError()


def test_splits_and_names_of_a_folder_share_its_index(cache: Path, tmp_path: Path, folder_root: Path) -> None:
    assert examined(open_data(folder_root, split="train"))[0] == 3
    (tmp_path / "link").symlink_to(folder_root)
    for again in (folder_root, tmp_path / "link", folder_root / "street" / ".."):
        assert examined(open_data(again, split="train"))[0] == 0
    reporter = Said()
    keep_readable_records(open_unlabelled(folder_root), reporter=reporter)
    assert reporter.bars == [("checking images", 4, 3)]
    assert reporter.advanced == 1
    assert len(list((cache / "wsss" / "index").iterdir())) == 1


@given(where=st.floats(0, 0.999), share=st.floats(0, 1), flip=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_made_again(
    where: float, share: float, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes are cut out, or changed where ``flip`` is not 0."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    rows = np.zeros(2, ENTRY)
    rows["path"], rows["fault"] = (3, 5), (-1, 0)
    entries = Entries(rows, (Fault("image-broken", "why"),))
    save_index(folder, entries)
    content = bytearray(index_path(folder).read_bytes())
    start = int(where * len(content))
    end = start + 1 + int(share * (len(content) - start - 1))
    content[start:end] = bytes(byte ^ flip for byte in content[start:end]) if flip else b""
    index_path(folder).write_bytes(content)
    loaded = load_index(folder)
    assert len(loaded) in (0, 2)
    if len(loaded):
        np.testing.assert_array_equal(loaded.rows_N, rows)
    save_index(folder, entries)
    assert len(load_index(folder)) == 2


def test_other_decoders_scan_again(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    tagged = photo_set(tmp_path / "photos", 2)
    assert [examined(tagged)[0] for _ in range(2)] == [2, 0]
    monkeypatch.setattr(index_file.cv2, "__version__", "99.0")
    assert [examined(tagged)[0] for _ in range(2)] == [2, 0]


def test_newer_entries_replace_older_ones_and_their_faults() -> None:
    def entries(*rows: tuple[int, int, int], faults: tuple[str, ...] = ()) -> Entries:
        rows_N = np.zeros(len(rows), ENTRY)
        rows_N["path"], rows_N["length"], rows_N["fault"] = np.array(rows).T
        return Entries(rows_N, tuple(Fault("image-broken", fault) for fault in faults))

    old = entries((9, 1, 0), (2, 1, -1), (4, 1, 1), faults=("a", "b"))
    new = entries((4, 2, -1), (9, 2, 1), (1, 2, 0), faults=("c", "d"))
    both = old.joined(new).by_path()
    assert both.rows_N["path"].tolist() == [1, 2, 4, 9]
    assert both.rows_N["length"].tolist() == [2, 1, 2, 2]
    assert [fault and fault.reason for fault in map(both.fault, range(4))] == ["c", None, None, "d"]
    assert [fault.reason for fault in both.faults] == ["c", "d"]
    stamps = np.array([[1, 0, 0], [2, 0, 0], [2, 0, 0], [2, 0, 1], [2, 0, 0]])
    assert both.find(np.array([2, 9, 3, 1, 4], np.uint64), stamps).tolist() == [1, 3, -1, -1, 2]
    assert Entries.empty().find(np.array([2], np.uint64), stamps[:1]).tolist() == [-1]
    assert len(Entries.empty().by_path()) == 0


@pytest.mark.parametrize("how", ["a file in the way", "no home"])
def test_without_a_cache_folder_scans_work_and_say_it_once(
    how: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = photo_set(tmp_path / "photos", 2)
    if how == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", homeless)
    else:
        cache.touch()
    reporter = Said()
    for _ in range(2):
        kept, _ = keep_readable(tagged, reporter=reporter)
        assert kept.records[0].size == (64, 96)
    assert reporter.advanced == 4
    assert len(reporter.remarks) == 1
    assert "not kept" in reporter.remarks[0]


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert index_path(tmp_path).parent == tmp_path / ".cache" / "wsss" / "index"


def test_an_interrupted_scan_keeps_what_it_found(cache: Path, tmp_path: Path) -> None:
    tagged = photo_set(tmp_path / "photos", 40)

    class Interrupting(Said):
        def advance(self, count: int = 1, note: str = "") -> None:
            super().advance(count)
            if self.advanced == 15:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_images(tagged.records, Interrupting())
    assert examined(tagged)[0] == 25


def test_a_long_scan_is_saved_as_it_goes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = photo_set(tmp_path / "photos", 6)
    monkeypatch.setattr(index, "SAVE_SECONDS", 0)
    seen = []

    class Looking(Said):
        def advance(self, count: int = 1, note: str = "") -> None:
            seen.append(len(load_index(tmp_path / "photos")))

    scan_images(tagged.records, Looking())
    assert seen == [0, 1, 2, 3, 4, 5]


def scan_some(root: str, first: int) -> int:
    records = open_unlabelled(Path(root))
    return len(scan_images(records[first : first + 20]).readable())


def test_several_processes_scan_at_once(cache: Path, tmp_path: Path) -> None:
    tagged = photo_set(tmp_path / "photos", 40)
    time.sleep(0.1)
    with get_context("spawn").Pool(3) as pool:
        counts = pool.starmap(scan_some, [(str(tmp_path / "photos"), first) for first in (0, 10, 20)])
    assert counts == [20, 20, 20]
    assert examined(tagged)[0] < 40
    assert examined(tagged)[0] == 0


def test_the_oldest_files_go(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "MOST_FILES", 2)
    folders = [tmp_path / name for name in "abc"]
    for age, folder in enumerate(folders):
        examined(photo_set(folder, 1))
        os.utime(index_path(folder), (age, age))
    assert [index_path(folder).exists() for folder in folders] == [False, True, True]


def test_large_images_are_not_decoded_side_by_side(tmp_path: Path) -> None:
    from threading import Lock, Thread

    budget, lock, held, most = Budget(100), Lock(), [0], [0]

    def use(amount: int) -> None:
        with budget.part(amount):
            with lock:
                held[0] += amount
                most[0] = max(most[0], held[0] if amount <= 100 else 0)
                alone = held[0] == amount
            assert alone or amount <= 100
            time.sleep(0.001)
            with lock:
                held[0] -= amount

    threads = [Thread(target=use, args=(amount,)) for amount in (30, 60, 90, 500, 20, 40) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 100


def test_the_stamp_of_no_file() -> None:
    assert file_stamp("/nowhere/at/all") == (-1, -1, -1)


def test_a_large_set_opens_in_moments_and_in_columns(cache: Path, tmp_path: Path) -> None:
    """A fifth of the promise for a million images: 2 s and 150 MB."""
    count, paths = 200_000, [f"train2014/COCO_train2014_{number:012}" for number in range(200_000)]
    records = Records.of(
        (Record(name=path, image=tmp_path / f"{path}.jpg", tags=(1, number % 80)) for number, path in enumerate(paths)),
        tmp_path,
    )
    rows, stamp_N3 = np.zeros(count, ENTRY), np.arange(3 * count).reshape(-1, 3)
    rows["path"], rows["fault"], rows["size"] = records.paths.hashes(), -1, (480, 640)
    rows["length"], rows["modified"], rows["changed"] = stamp_N3.T
    save_index(tmp_path, Entries(rows, ()))
    began = time.perf_counter()
    stored = load_index(tmp_path)
    scan = Scan(records, stored, stored.find(records.paths.hashes(), stamp_N3))
    filled = scan.readable()
    assert time.perf_counter() - began < 1.5
    assert scan.broken() == ()
    assert filled[77_777] == replace(records[77_777], size=(480, 640), digest=None)
    assert len(pickle.dumps(filled)) < 30_000_000


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs in the background without it
from pathlib import Path
from wsss.data import index
from wsss.data.dataset import open_unlabelled
from wsss.reporting import Silent

class Loud(Silent):
    def advance(self, count=1, note=""):
        print("one", flush=True)

quick = index.examine_image
index.examine_image = lambda content, where: (time.sleep(0.05), quick(content, where))[1]
index.SAVE_SECONDS = 0
index.scan_images(open_unlabelled(Path(sys.argv[1])), Loud())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_scan_soon_and_what_it_found_is_kept(cache: Path, tmp_path: Path, number: int) -> None:
    tagged = photo_set(tmp_path / "photos", 300)  # 300 * 0.05 s in at most 8 threads: 2 s or more
    time.sleep(0.1)
    command = [sys.executable, "-c", SLOW, str(tmp_path / "photos")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(10):
            assert process.stdout.readline() == b"one\n"
        process.send_signal(number)
        began = time.monotonic()
        rest, _ = process.communicate(timeout=20)
        assert time.monotonic() - began < 1.5
        assert process.returncode == -number
    assert 10 + len(rest.split()) < 300
    assert 0 < len(load_index(tmp_path / "photos")) < 300
    assert examined(tagged)[0] <= 292
