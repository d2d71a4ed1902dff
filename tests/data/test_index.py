from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.data.facts import image_digest, why_unreadable
from wsss.data.index import keep_readable, too_many_broken
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError

SOME = Record(name="p0", image=Path("p0.jpg"), tags=(0,))


def photo_set(root: Path, count: int) -> TaggedSet:
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for k in range(count):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(root / f"p{k}.jpg")
    records = tuple(Record(name=f"p{k}", image=root / f"p{k}.jpg", tags=(0,)) for k in range(count))
    return TaggedSet(root=root, split="all", classes=("cat",), records=records)


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
