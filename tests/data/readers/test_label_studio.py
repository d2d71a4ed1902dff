"""Label Studio by value: brush streams, regions, which annotation counts, groups of choices, which file is read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import wsss
from wsss.data.areas import BadShape, pixels
from wsss.data.readers.brush import brushed
from wsss.errors import DataError

SIZE = (2, 4)


def write(root: Path, *tasks: dict[str, Any], file: str = "project.json") -> Path:
    root.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", SIZE[::-1]).save(root / name)
    (root / file).write_text(json.dumps(tasks))
    return root


def task(*annotations: dict[str, Any], image: str = "a.png", **more: Any) -> dict[str, Any]:
    """A task as exports write it: the image comes last."""
    return {"id": 7, "annotations": [*annotations], **more, "data": {"image": image}}


def said(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"result": [*results], **more}


def choice(*words: str, group: str = "kind", **more: Any) -> dict[str, Any]:
    return {"type": "choices", "from_name": group, "to_name": "image", "value": {"choices": [*words]}, **more}


def region(kind: str, value: dict[str, Any], *labels: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "from_name": "area", "value": {**value, kind: [*labels]}, **more}


def polygon(*labels: str, **more: Any) -> dict[str, Any]:
    """The left half of the image."""
    return region("polygonlabels", {"points": [[0, 0], [50, 0], [50, 100], [0, 100]]}, *labels, **more)


def tags(root: Path, **reading: Any) -> tuple[list[set[str]], list[str]]:
    """The tags of each image and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = wsss.open_dataset(root, **reading)
        found = [{data.classes[tag] for tag in record.tags} for record in data.records()]
    return found, [str(one.message) for one in caught]


def mask(root: Path, **reading: Any) -> list[list[int]] | None:
    data = wsss.open_dataset(root, **reading)
    truth_HW = data.truth(data.records()[0])
    return None if truth_HW is None else truth_HW.tolist()


def stream(alpha_HW: np.ndarray[Any, Any], sizes: tuple[int, ...] = (3, 4, 8, 16)) -> list[int]:
    """A brush stroke by the book: runs of RGBA values where a value repeats, else the values one by one."""
    values = [int(value) for value in np.repeat(alpha_HW.reshape(-1), 4)]
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    while at < len(values):
        end = at
        while end < len(values) and values[end] == values[at] and end - at < 2 ** sizes[3]:
            end += 1
        if end - at > 4:
            bits += f"1{3:02b}{end - at - 1:0{sizes[3]}b}{values[at]:08b}"
        else:
            end = min(at + 4, len(values))
            bits += f"0{0:02b}{end - at - 1:0{sizes[0]}b}" + "".join(f"{value:08b}" for value in values[at:end])
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


@given(
    arrays.arrays(
        np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 255])
    ),
    st.sampled_from([(3, 4, 8, 16), (2, 2, 2, 9), (4, 1, 16, 12)]),
)
def test_a_brush_stream_gives_the_stroke_again(alpha_HW: np.ndarray[Any, Any], sizes: tuple[int, ...]) -> None:
    area = brushed(stream(alpha_HW, sizes), alpha_HW.shape)
    np.testing.assert_array_equal(pixels(area), alpha_HW > 127)


def test_the_alpha_of_a_brush_counts_above_127_and_an_empty_one_is_an_empty_mask() -> None:
    assert pixels(brushed(stream(np.array([[127, 128, 200]])), (1, 3))).tolist() == [[False, True, True]]
    assert not pixels(brushed([], (1, 3))).any()


@pytest.mark.parametrize("bad", [None, "x", [256], [-1], [True], [1.0], [0, 0], stream(np.zeros((3, 3)))])
def test_what_is_no_brush_of_this_size_is_refused(bad: Any) -> None:
    with pytest.raises(BadShape):
        brushed(bad, (1, 3))


def test_polygons_are_percentages_and_the_smaller_area_is_in_front(tmp_path: Path) -> None:
    whole = region("polygonlabels", {"points": [[0, 0], [100, 0], [100, 100], [0, 100]]}, "dog")
    assert mask(write(tmp_path, task(said(polygon("cat"), whole)))) == [[1, 1, 2, 2]] * 2


def test_a_region_without_a_label_or_with_two_is_ignored(tmp_path: Path) -> None:
    root = write(tmp_path, task(said(polygon("cat", "dog"))))
    assert mask(root) == [[255, 255, 0, 0]] * 2
    assert tags(root)[0] == [{"cat", "dog"}]


@pytest.mark.parametrize(
    "other",
    [
        region("rectanglelabels", {"x": 0, "y": 0, "width": 50, "height": 50}, "dog"),
        region("keypointlabels", {"x": 0, "y": 0, "width": 1}, "dog"),
        region("ellipselabels", {"x": 0, "y": 0, "radiusX": 5, "radiusY": 5}, "dog"),
    ],
)
def test_a_region_without_pixels_is_a_tag_and_leaves_no_mask(tmp_path: Path, other: dict[str, Any]) -> None:
    root = write(tmp_path, task(said(polygon("cat"), other)))
    assert tags(root)[0] == [{"cat", "dog"}]
    assert mask(root) is None


def test_a_turned_image_has_tags_and_no_mask_that_can_be_read(tmp_path: Path) -> None:
    root = write(tmp_path, task(said(polygon("cat", image_rotation=90))))
    assert tags(root)[0] == [{"cat"}]
    with pytest.raises(DataError, match=r"task 7.*image_rotation"):
        mask(root)


OLD, NEW = {"updated_at": "2024-01-01T10:00:00Z"}, {"updated_at": "2025-01-01T10:00:00Z"}


@pytest.mark.parametrize(
    ("annotations", "newest", "union"),
    [
        ([said(choice("cat"), **OLD), said(choice("dog"), **NEW)], {"dog"}, {"cat", "dog"}),
        ([said(choice("cat"), **OLD, ground_truth=True), said(choice("dog"), **NEW)], {"cat"}, {"cat", "dog"}),
        ([said(choice("cat"), **OLD), said(choice("dog"), **NEW, was_cancelled=True)], {"cat"}, {"cat"}),
        ([said(choice("cat"), **OLD), said(**NEW)], set(), {"cat"}),
    ],
)
def test_which_annotation_counts(tmp_path: Path, annotations: list[Any], newest: set[str], union: set[str]) -> None:
    root = write(tmp_path, task(*annotations))
    differ = newest != union
    found, remarks = tags(root, classes=["cat", "dog"])
    assert found == [newest]
    assert [remark for remark in remarks if "annotators differ on 1 images" in remark] == remarks[:1] * differ
    assert tags(root, annotators="union", classes=["cat", "dog"])[0] == [union]


def test_old_keys_and_the_last_word_of_a_taxonomy(tmp_path: Path) -> None:
    paths = {"taxonomy": [["animal", "cat"], ["animal", "dog", "poodle"]]}
    result = {"type": "taxonomy", "from_name": "kind", "value": paths}
    skipped = said(choice("cow"), skipped=True)
    root = write(tmp_path, {"id": 1, "completions": [skipped, said(result)], "data": {"photo": "https://x/a.png?s=1"}})
    assert tags(root)[0] == [{"cat", "poodle"}]


def test_several_groups_of_choices_must_be_chosen_from(tmp_path: Path) -> None:
    about_region = choice("spotted", group="coat", id="r1")
    drawn = polygon("cat", id="r1")
    root = write(tmp_path, task(said(choice("dog"), choice("sharp", group="quality"), about_region, drawn)))
    with pytest.raises(DataError, match="several groups of choices: kind, quality"):
        tags(root)
    assert tags(root, tag_field="kind")[0] == [{"cat", "dog"}]
    assert tags(root, tag_field="kind", tags_from="file")[0] == [{"dog"}]
    assert tags(root, tags_from="shapes")[0] == [{"cat"}]


def test_an_unlabelled_task_is_left_out_and_a_submitted_empty_one_has_no_class(tmp_path: Path) -> None:
    root = write(tmp_path, task(said()), task(image="b.png"), task(said(choice("cat")), image="nowhere/b.png"))
    found, remarks = tags(root)
    assert found == [set(), {"cat"}]
    assert "1 images have no annotation and are left out (b.png)" in remarks[0]


@pytest.mark.parametrize("annotations", [{}, {"annotations": []}])
def test_a_file_of_predictions_alone_is_recognised_and_refused(tmp_path: Path, annotations: dict[str, Any]) -> None:
    guessed = [{"model_version": "v1", "result": [choice("cat")]}]
    root = write(tmp_path, {"id": 1, **annotations, "predictions": guessed, "data": {"image": "a.png"}})
    with pytest.raises(DataError, match="no task has an annotation; predictions and drafts are not read"):
        tags(root)


def test_a_long_brush_before_the_image_hides_nothing(tmp_path: Path) -> None:
    brush = region("brushlabels", {"format": "rle", "rle": [0] * 50_000}, "cat")
    assert tags(write(tmp_path, task(said(brush))))[0] == [{"cat"}]


def test_of_two_files_tags_chooses(tmp_path: Path) -> None:
    root = write(tmp_path, task(said(choice("cat"))))
    write(root, task(said(choice("dog"))), file="later.json")
    with pytest.raises(DataError, match=r"later\.json, project\.json") as caught:
        tags(root)
    assert "--tags" in str(caught.value.fix)
    assert tags(root, tags=root / "later.json")[0] == [{"dog"}]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("min.json", '[{"image": "/data/upload/1/0a1b2c3d-a.png", "id": 1, "kind": {"choices": ["cat", "dog"]}}]'),
        ("min.json", '[{"image": "/data/local-files/?d=x%5Ca.png", "id": 1, "annotator": 2, "kind": "cat"}]'),
        ("export.csv", 'annotator,id,image,kind\n1,1,a.png,"{""choices"":[""cat"",""dog""]}"\n'),
        ("export.tsv", "annotator\tid\timage\tkind\n1\t1\ta.png\tcat\n"),
    ],
)
def test_the_short_exports_are_tables(tmp_path: Path, file: str, content: str) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
    (tmp_path / file).write_text(content)
    assert tags(tmp_path)[0] == [{"cat", "dog"} if "dog" in content else {"cat"}]
