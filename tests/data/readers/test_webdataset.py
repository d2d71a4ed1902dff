"""Tar shards are read by offset; hostile and broken ones are refused by name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data, open_unlabelled
from wsss.data.findings import BadData
from wsss.data.images import decode_image
from wsss.data.masks import encode_mask
from wsss.data.readers.webdataset import splits_of
from wsss.data.records import TaggedSet
from wsss.data.shards import open_shards
from wsss.errors import DataError, UsageError


def png(value: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (6, 4), (value,) * 3 if mode == "RGB" else value).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, members: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path.parent


def tags(tagged: TaggedSet) -> dict[str, set[str]]:
    return {record.name: {tagged.classes[tag] for tag in record.tags} for record in tagged.records}


def read(root: Path, **reading: object) -> dict[str, set[str]]:
    return tags(open_data(root, reading=Reading(**reading)))  # type: ignore[arg-type]


def test_members_keys_and_fields(tmp_path: Path) -> None:
    root = shard(
        tmp_path / "a-000.tar",
        {"./x/1.v2.PNG": png(1), "x/1.json": '{"label": "cat"}', "x/2.png": png(2), "x/2.json": '{"label": ["dog"]}'},
    )
    assert read(root) == {"x/1": {"cat"}, "x/2": {"dog"}}
    first, second = open_data(root).records
    assert (decode_image(first.read(), first.image) == 1).all()
    assert (decode_image(second.read(), second.image) == 2).all()
    assert first.image == root / "a-000.tar:x/1"
    assert [record.name for record in open_unlabelled(root)] == ["x/1", "x/2"]


@pytest.mark.parametrize(
    ("shards", "splits"),
    [
        (["pets-train-000000.tar", "pets-val-000001.tar"], ["train", "val"]),
        (["a/train-0.tar", "b/val-0.tar"], ["a", "b"]),
        (["train_aug-000000.tar", "train-000000.tar", "val-000000.tar"], ["train_aug", "train", "val"]),
        (["a-000000.tar", "b-000000.tar"], ["a", "b"]),
        (["pre-val-000000.tar", "train-000000.tar"], ["pre-val", "train"]),
        (["000000.tar", "000001.tar"], ["000000", "000001"]),
        (["photos.tar"], ["photos"]),
        (["imagenet-train-{000}.tar"], ["imagenet-train-{000}"]),
    ],
)
def test_splits_by_the_names_of_shards(shards: list[str], splits: list[str]) -> None:
    assert [*splits_of(shards).values()] == splits


def test_numbers_are_classes_from_0(tmp_path: Path) -> None:
    root = shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.cls": "1", "2.png": png(1), "2.json": '{"labels": [0, 1]}'})
    with pytest.raises(DataError, match="class 1, and no classes are told") as caught:
        read(root)
    assert "--classes" in str(caught.value.fix)
    assert list_splits(root) == ("a",)
    assert read(root, classes=("cat", "dog")) == {"1": {"dog"}, "2": {"cat", "dog"}}
    (root / "classes.txt").write_text("cow\npig\n")
    assert read(root) == {"1": {"pig"}, "2": {"cow", "pig"}}


def test_the_field_of_tags(tmp_path: Path) -> None:
    two = '{"label": "cat", "tags": ["dog", "cow"], "caption": "a cat"}'
    root = shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.json": two, "1.txt": "pig; cow"})
    with pytest.raises(DataError, match="several keys may hold the tags: label, tags"):
        read(root)
    assert read(root, tag_field="tags") == {"1": {"dog", "cow"}}
    assert read(root, tag_field="txt") == {"1": {"pig", "cow"}}
    with pytest.raises(DataError, match="no key or field 'kind'; the keys are label, tags, caption"):
        read(root, tag_field="kind")
    with pytest.raises(UsageError, match="shards bring their tags"):
        read(root, tags_from="masks")
    bare = shard(tmp_path / "bare" / "a-0.tar", {"1.png": png(1)})
    with pytest.raises(DataError):
        read(bare)
    assert len(open_data(bare, need_tags=False, classes=("cat",))) == 1


def test_masks_have_one_value_a_pixel(tmp_path: Path) -> None:
    mask_HW = np.array([[0, 1, 255, 1, 0, 1]] * 4, np.uint8)
    root = shard(
        tmp_path / "a-0.tar",
        {
            **{"1.png": png(1), "1.json": '["cat"]', "1.mask.png": encode_mask(mask_HW)},
            **{"2.png": png(1), "2.json": '["cat"]', "2.seg.png": png(3)},
            **{"3.png": png(1), "3.json": '["cat"]', "3.seg.png": png(1, "L")},
        },
    )
    tagged = open_data(root)
    first, colours, grey = tagged.records
    assert (tagged.truth(first) == mask_HW).all()  # type: ignore[union-attr]
    assert (tagged.truth(colours), tagged.has_truth(colours)) == (None, False)
    assert (tagged.truth(grey) == 1).all()  # type: ignore[union-attr]


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (link("2.png", "/etc/passwd", tarfile.SYMTYPE), "is a link, a device or no plain file"),
        (link("2.png", "1.png", tarfile.LNKTYPE), "is a link, a device or no plain file"),
        (link("2.png", "", tarfile.FIFOTYPE), "is a link, a device or no plain file"),
        (tarfile.TarInfo("../2.png"), "lies outside of the shard"),
        (tarfile.TarInfo("/2.png"), "lies outside of the shard"),
        (tarfile.TarInfo("a/../../2.png"), "lies outside of the shard"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, entry: tarfile.TarInfo, problem: str) -> None:
    root = shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.json": '["cat"]'})
    with tarfile.open(root / "a-0.tar", "a") as tar:
        tar.addfile(entry)
    with pytest.raises(DataError, match=problem) as caught:
        read(root)
    assert "2.png" in str(caught.value)
    noted: list[BadData] = []
    assert tags(open_data(root, note=noted.append)) == {"1": {"cat"}}
    assert noted


def test_a_shard_that_is_cut_short(tmp_path: Path) -> None:
    root = shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.json": '["cat"]', "2.png": png(2), "2.json": '["dog"]'})
    whole = (root / "a-0.tar").read_bytes()
    for length in (0, 100, 512, 600, 1024, 1100, 1536, 2048, 2600, 3072, 4000, 4096):
        (root / "a-0.tar").write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            read(root)
        assert "a-0.tar" in str(caught.value), length
    (root / "a-0.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(DataError, match="no tar archive"):
        read(root)


def test_compressed_shards_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a-0.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    with pytest.raises(DataError, match="compressed: its members cannot be read one by one") as caught:
        read(tmp_path)
    assert str(caught.value.fix).startswith("gunzip ")


def test_two_samples_of_one_name(tmp_path: Path) -> None:
    shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.json": '["cat"]'})
    root = shard(tmp_path / "a-1.tar", {"1.png": png(1), "1.json": '["dog"]'})
    with pytest.raises(DataError, match=r"sample '1' has the name of another one, in a-0\.tar"):
        read(root)
    apart = shard(tmp_path / "b" / "a-0.tar", {"1.png": png(1), "2.png": png(2), "1.json": '["cat"]'})
    with pytest.raises(DataError):  # the json of 1 is no neighbour
        read(apart)


def test_what_is_kept_follows_the_shards(tmp_path: Path) -> None:
    """The second reading opens no shard; a changed one is read again."""
    root = shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.json": '["cat"]'})
    assert read(root) == {"1": {"cat"}}
    noted: list[BadData] = []
    before = open_shards(root, ["a-0.tar"], noted.append)
    shard(tmp_path / "a-0.tar", {"1.png": png(1), "1.json": '["dogs"]'})
    assert open_shards(root, ["a-0.tar"], noted.append) != before
    assert read(root) == {"1": {"dogs"}}
    assert not noted


@pytest.mark.parametrize("content", ["", "{", "[1", '{"labels": 1.5}', '{"labels": {"a": 1}}', '{"labels": [[1]]}'])
def test_json_that_holds_no_labels(tmp_path: Path, content: str) -> None:
    root = shard(tmp_path / "a-0.tar", {"k/1.png": png(1), "k/1.json": content})
    with pytest.raises(DataError) as caught:
        read(root)
    assert "'k/1'" in str(caught.value)
    assert json.dumps(str(caught.value))
