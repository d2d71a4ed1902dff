"""COCO files: ids, roots, crowds, chunks of the file, and damaged files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import wsss
from wsss.data.readers import coco_cache, json_stream
from wsss.data.readers.coco_file import read_coco
from wsss.data.readers.json_stream import elements
from wsss.errors import DataError, WsssError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out

FORMATS = Path(__file__).parents[2] / "formats"
SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]


def write(root: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    """A data folder of one image of 4 x 4 pixels."""
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 4, "height": 4}],
        "annotations": annotations,
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
        **more,
    }
    Image.new("RGB", (4, 4)).save(root / "a.png")
    (root / "result.json").write_text(json.dumps(content))
    return root


def annotation(category: int = 9, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": category, "segmentation": SQUARE, "iscrowd": 0, **more}


def test_categories_are_ordered_by_id_and_a_crowd_with_attributes_is_an_object(tmp_path: Path) -> None:
    dataset = wsss.open_dataset(write(tmp_path, [annotation(iscrowd=1, attributes={}), annotation(3)]))
    tagged = dataset.split("all")
    assert tagged.classes == ("dog", "cat")
    truth_HW = tagged.truth(tagged.records[0])
    assert truth_HW is not None
    assert sorted(set(truth_HW.flat)) == [0, 1]


def test_told_crowds_are_ignored_and_lie_below(tmp_path: Path) -> None:
    whole = [[0, 0, 4, 0, 4, 4, 0, 4]]
    root = write(tmp_path, [annotation(3), annotation(iscrowd=1, segmentation=whole)])
    with pytest.raises(DataError, match="crowds"):
        wsss.open_dataset(root).records()
    tagged = wsss.open_dataset(root, crowd="ignore").split("all")
    truth_HW = tagged.truth(tagged.records[0])
    assert truth_HW is not None
    assert truth_HW.tolist() == [[255] * 4, [255, 1, 1, 255], [255, 1, 1, 255], [255] * 4]


def test_a_root_is_dropped_only_if_unused(tmp_path: Path) -> None:
    above = [{"id": 0, "name": "weeds", "supercategory": "none"}, {"id": 9, "name": "cat", "supercategory": "weeds"}]
    assert wsss.open_dataset(write(tmp_path, [annotation()], categories=above)).classes == ("cat",)
    root = write(tmp_path, [annotation(), annotation(0)], categories=above)
    assert wsss.open_dataset(root).classes == ("weeds", "cat")


@pytest.mark.parametrize("outline", [[[0, 0, float("nan"), 1, 1, 1]], [[0, 0, 1e9, 0, 1, 1]], {"size": [4, 4]}, [[1]]])
def test_a_bad_outline_is_an_error_only_when_the_mask_is_read(tmp_path: Path, outline: Any) -> None:
    tagged = wsss.open_dataset(write(tmp_path, [annotation(segmentation=outline)])).split("all")
    if tagged.has_truth(tagged.records[0]):
        with pytest.raises(DataError):
            tagged.truth(tagged.records[0])


def test_an_unknown_id_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="category 5"):
        wsss.open_dataset(write(tmp_path, [annotation(5)])).records()


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_chunks_do_not_matter(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "info": {"a": 1.5},
        "images": [{"n": "corrosão \u00e9"}, 12, 1.25, 2e3, "x"],
        "annotations": [],
        "z": -30,
    }
    for ascii_only in (True, False):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content, ensure_ascii=ascii_only), encoding="utf-8-sig")
        monkeypatch.setattr(json_stream, "CHUNK", chunk)
        found = list(elements(path, frozenset({"images", "annotations"})))
        assert [value for _, value, _, _ in found] == [{"a": 1.5}, *content["images"], -30]  # type: ignore[misc]
        for _, value, start, length in found:
            assert json.loads(path.read_bytes()[start : start + length]) == value


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_unread_numbers_change_no_place(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    outlines = [[[1, 2.5e-3, -3]], [[1], [2, 3]], [], [[]], {"size": [1, 2], "counts": [0, 2]}, None]
    content = [{"name": 'a"unread":[1]', "unread": outline, "é": [1, 2]} for outline in outlines]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": content}, ensure_ascii=False), encoding="utf-8")
    found = list(elements(path, frozenset({"images"}), unread="unread"))
    for (_, value, _, _), outline in zip(found, outlines, strict=True):
        assert value["unread"] in (outline, [1] if outline in outlines[:2] else outline)  # whole where chunks cut it
    if chunk == 1000:
        assert [value["unread"] for _, value, _, _ in found[:2]] == [[1], [1]]
    for (_, value, start, length), whole in zip(found, content, strict=True):
        assert json.loads(path.read_bytes()[start : start + length]) == whole
        assert {**value, "unread": None} == {**whole, "unread": None}


SAMPLE = (FORMATS / "coco_instances/annotations/instances_val2017.json").read_bytes()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(SAMPLE) - 1), cut=st.integers(0, 40), new=st.binary(max_size=6))
def test_a_damaged_file_is_an_error_or_read(tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, new: bytes):  # type: ignore[no-untyped-def]
    root = tmp_path_factory.mktemp("coco")
    shutil.copytree(FORMATS / "coco_instances/val2017", root / "val2017")
    (root / "instances_val2017.json").write_bytes(SAMPLE[:at] + new + SAMPLE[at + cut :])
    try:
        for split, tagged in ((name, wsss.open_dataset(root).split(name)) for name in wsss.open_dataset(root).splits):
            assert split
            for record in tagged.records:
                tagged.truth(record)
    except WsssError:
        pass


def test_a_deeply_nested_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"images": [' + "[" * 100_000)
    with pytest.raises(DataError):
        read_coco(path, lambda error: None)


def test_a_large_file_is_scanned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(coco_cache, "LEAST", 0)
    path = FORMATS / "coco_instances/annotations/instances_train2017.json"
    first = coco_cache.open_coco(path, lambda error: None)
    with monkeypatch.context() as patched:
        patched.setattr(coco_cache, "read_coco", None)
        assert coco_cache.open_coco(path, lambda error: None) == first
    copy = write(tmp_path, [annotation()]) / "result.json"
    coco_cache.open_coco(copy, lambda error: None)
    write(tmp_path, [annotation(), annotation(3)])
    assert len(coco_cache.open_coco(copy, lambda error: None).rows) == 2
