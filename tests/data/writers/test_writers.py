"""Every writer: the label map of tests/formats/outputs as it is shown there, and random maps read back."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from wsss.config import Reading
from wsss.data.areas import outlined, pixels, row_runs, runs
from wsss.data.dataset import open_data
from wsss.data.masks import PALETTE, read_mask
from wsss.data.readers.registry import READERS
from wsss.data.readers.voc import VOC_CLASSES
from wsss.data.writers.geojson import tile_place
from wsss.data.writers.registry import WRITERS
from wsss.data.writers.voc_test import archive_faults
from wsss.data.writers.writer import Export, Picture
from wsss.errors import DataError, UsageError
from wsss.outputs.exports import write_export

OUTPUTS = Path(__file__).parents[2] / "formats" / "outputs"
MAPS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))
Label = NDArray[np.uint8]


def shown() -> Label:
    rows = json.loads((OUTPUTS / "EXPECTED.json").read_text())["images"]["field_1.jpg"]["mask"]["rows"]
    return np.array([[255 if digit == "." else int(digit) for digit in row] for row in rows], np.uint8)


def export_of(label: Label, image: Path | None = OUTPUTS / "field_1.jpg", **options: Any) -> Export:
    tags = tuple(name for k, name in enumerate(("crop", "weed"), start=1) if (label == k).any())
    picture = Picture(name="field_1", image=image, split="train", tags=tags, label=lambda: label)
    return Export(classes=("crop", "weed"), pictures=[picture], masks=True, **options)


def written(out: Path, to: str, label: Label, **options: Any) -> Path:
    write_export(out, export_of(label, **options), WRITERS[to])
    return out


def without_ignored(label: Label) -> Label:
    return np.where(label == 255, 0, label).astype(np.uint8)


def from_coco(out: Path, size: tuple[int, int]) -> Label:
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    label = np.zeros(size, np.uint8)
    for one in content["annotations"]:
        area = one["segmentation"]
        if isinstance(area, list):
            area = coco.merge(coco.frPyObjects(area, *size))
        mask = np.asarray(coco.decode(area), np.bool_)
        assert (one["iscrowd"], one["area"], one["bbox"]) == (0, mask.sum(), coco.toBbox(area).tolist())
        label[mask] = one["category_id"]
    return label


def from_yolo(out: Path, size: tuple[int, int]) -> Label:
    label = np.zeros(size, np.uint8)
    for line in (out / "labels" / "train" / "field_1.txt").read_text().splitlines():
        number, *numbers = line.split()
        corners = np.array(numbers, float).reshape(-1, 2) * (size[1], size[0])
        label[pixels(outlined([corners.reshape(-1)], size))] = int(number) + 1
    return label


def from_cvat(out: Path, size: tuple[int, int]) -> Label:
    label = np.zeros(size, np.uint8)
    for one in ElementTree.parse(out / "annotations.xml").iter("mask"):
        left, top, width, height = (int(one.attrib[key]) for key in ("left", "top", "width", "height"))
        lengths = [int(length) for length in one.attrib["rle"].split(",")]
        mask = pixels(row_runs(lengths, left, top, width, height, size))
        label[mask] = ("crop", "weed").index(one.attrib["label"]) + 1
    return label


def from_cvat_masks(out: Path, size: tuple[int, int]) -> Label:
    rgb = np.asarray(Image.open(out / "SegmentationClass" / "field_1.png"))
    return (rgb[:, :, None] == PALETTE[:3]).all(-1).argmax(-1).astype(np.uint8)


def bits_of(content: bytes) -> Label:
    """The alpha channel of a brush, read bit by bit."""
    text = "".join(f"{byte:08b}" for byte in content)
    place = 0

    def take(bits: int) -> int:
        nonlocal place
        place += bits
        return int(text[place - bits : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        run, kind = take(1), take(2)
        length = take(sizes[kind]) + 1
        values += [take(word)] * length if run else [take(word) for _ in range(length)]
    return np.array(values[3::4], np.uint8)


def from_label_studio(out: Path, size: tuple[int, int]) -> Label:
    (task,) = json.loads((out / "tasks.json").read_text())
    label = np.zeros(size, np.uint8)
    for one in task["predictions"][0]["result"]:
        mask = bits_of(bytes(one["value"]["rle"])).reshape(size) > 127
        label[mask] = ("crop", "weed").index(one["value"]["brushlabels"][0]) + 1
    return label


def from_geojson(out: Path, size: tuple[int, int]) -> Label:
    label = np.zeros(size, np.uint8)
    for feature in json.loads((out / "field_1.geojson").read_text())["features"]:
        k = ("crop", "weed").index(feature["properties"]["classification"]["name"]) + 1
        for outer, *holes in feature["geometry"]["coordinates"]:
            mask = pixels(outlined([np.ravel(outer)], size))
            for hole in holes:
                assert hole[0] == hole[-1]
                mask &= ~pixels(outlined([np.ravel(hole)], size))
            label[mask] = k
    return label


READ_BACK: dict[str, Callable[[Path, tuple[int, int]], Label]] = {
    "coco": from_coco,
    "yolo": from_yolo,
    "cvat": from_cvat,
    "cvat-masks": from_cvat_masks,
    "label-studio": from_label_studio,
    "geojson": from_geojson,
}


@pytest.mark.parametrize("to", READ_BACK)
@settings(max_examples=25, deadline=None)
@given(label=MAPS)
def test_a_random_map_comes_back_without_ignored_pixels(to: str, label: Label) -> None:
    with TemporaryDirectory() as folder:
        image = Path(folder) / "field_1.png"
        Image.new("RGB", label.shape[::-1]).save(image)
        out = written(Path(folder) / "out", to, label, image=image)
        again = READ_BACK[to](out, label.shape)  # type: ignore[arg-type]
    assert np.array_equal(again, without_ignored(label))


def test_outlines_in_coco_are_exact_too(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "coco", shown(), polygons=True)
    assert np.array_equal(from_coco(out, (24, 32)), without_ignored(shown()))


def test_results_are_as_shown(tmp_path: Path) -> None:
    like = tmp_path / "like.json"
    images = [{"id": 7, "file_name": "field_1.jpg"}]
    categories = [{"id": 44, "name": "weed"}, {"id": 18, "name": "crop"}]
    like.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    out = written(tmp_path / "out", "coco-results", shown(), like=like)
    assert json.loads((out / "results.json").read_text()) == json.loads((OUTPUTS / "coco_results.json").read_text())
    with pytest.raises(UsageError, match="ids"):
        written(tmp_path / "other", "coco-results", shown())
    like.write_text("[]")
    with pytest.raises(DataError, match="no COCO file"):
        written(tmp_path / "other", "coco-results", shown(), like=like)
    assert not (tmp_path / "other").exists()


def test_label_studio_is_as_shown(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "label-studio", shown())
    expected = json.loads((OUTPUTS / "label_studio_predictions.json").read_text())
    assert json.loads((out / "tasks.json").read_text()) == expected
    assert (out / "config.xml").read_text() == (OUTPUTS / "label_studio_config.xml").read_text()


def test_polygons_of_label_studio_say_that_holes_are_lost(tmp_path: Path) -> None:
    export = export_of(shown(), polygons=True, annotations=True)
    told = write_export(tmp_path / "out", export, WRITERS["label-studio"])
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    points = task["annotations"][0]["result"][0]["value"]["points"]
    assert points[0] == [100 * 2 / 32, 100 * 2 / 24]
    assert told["remarks"] == ["1 holes are filled: Label Studio's polygons have none (brushes have)"]
    assert told["ignored_pixels"] == 64


def test_cvat_is_as_shown(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "cvat", shown())
    ours, theirs = (
        [dict(one.attrib) for one in ElementTree.parse(path).iter("mask")]
        for path in (out / "annotations.xml", OUTPUTS / "cvat_annotations.xml")
    )
    assert ours == theirs
    out = written(tmp_path / "masks", "cvat-masks", shown())
    assert (out / "labelmap.txt").read_text() == (OUTPUTS / "labelmap.txt").read_text()


def test_yolo_names_and_empty_files(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "yolo", np.zeros((24, 32), np.uint8))
    assert (out / "labels" / "train" / "field_1.txt").read_text() == ""
    content = yaml.safe_load((out / "data.yaml").read_text())
    assert content == {"train": "images/train", "names": {0: "crop", 1: "weed"}}


def test_qgis_is_as_shown_and_keeps_ignored_pixels(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "qgis", shown())
    assert (out / "field_1.txt").read_text() == (OUTPUTS / "field_1_qgis.txt").read_text()
    assert np.array_equal(read_mask(out / "field_1.png"), shown())


def test_geojson_has_the_holes_and_the_colours_shown(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "geojson", shown())

    def facts(path: Path) -> list[Any]:
        features = json.loads(path.read_text())["features"]
        shapes = [
            sorted([sorted(map(tuple, ring[:-1])) for ring in polygon] for polygon in one["geometry"]["coordinates"])
            for one in features
        ]
        return [(one["properties"], shape) for one, shape in zip(features, shapes, strict=True)]

    assert facts(out / "field_1.geojson") == facts(OUTPUTS / "field_1.geojson")


def test_tiles_lie_where_their_names_say() -> None:
    assert tile_place("slide [d=2,x=10,y=512,w=512,h=512]") == (10, 512, 2)
    assert tile_place("slide [1 0 0 1]") == (0, 0, 1)


def test_the_archive_for_voc_and_its_faults(tmp_path: Path) -> None:
    label = np.array([[0, 20, 255]], np.uint8)
    Image.new("RGB", (3, 1)).save(tmp_path / "2008_000006.png")
    picture = Picture(
        name="2008_000006", image=tmp_path / "2008_000006.png", split="test", tags=(), label=lambda: label
    )
    export = Export(classes=VOC_CLASSES, pictures=[picture], masks=True)
    write_export(tmp_path / "out", export, WRITERS["voc-test"])
    path = tmp_path / "out" / "results.tgz"
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png"]
    assert list(archive_faults(path, {"2008_000006": (1, 3)})) == []
    faults = list(archive_faults(path, {"2008_000006": (1, 4), "2008_000008": None}))
    assert faults == ["2008_000006: is 3x1, its image 4x1 (width x height)", "2008_000008: no mask"]
    with pytest.raises(UsageError, match="20 classes"):
        written(tmp_path / "other", "voc-test", shown())


@pytest.mark.parametrize("name", ["crop: young", "a\nb"])
def test_names_that_a_format_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    export = export_of(shown())
    export.classes = (name, "weed")
    with pytest.raises(UsageError, match="cannot hold"):
        write_export(tmp_path / "out", export, WRITERS["cvat-masks"])
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("to", "reader"),
    [
        ("coco", "coco"),
        ("yolo", "yolo"),
        ("cvat", "cvat"),
        ("cvat-masks", "cvat-masks"),
        ("label-studio", "label-studio"),
    ],
)
def test_our_readers_read_it(tmp_path: Path, to: str, reader: str) -> None:
    if not any(name.startswith(reader) for name in READERS):
        pytest.skip(f"no reader of {reader}")
    annotations = {"annotations": True} if to == "label-studio" else {}
    out = written(tmp_path / "out", to, shown(), **annotations)
    for split in ("train", "all"):
        try:
            tagged = open_data(out, split=split, reading=Reading(tags_from="masks" if to == "cvat-masks" else "auto"))
        except UsageError:
            continue
        break
    (record,) = tagged.records
    assert [tagged.classes[tag] for tag in record.tags] == ["crop", "weed"]
    truth = tagged.truth(record)
    assert truth is not None
    assert np.array_equal(truth, without_ignored(shown()))


def test_run_lengths_of_coco_are_read_by_ours(tmp_path: Path) -> None:
    out = written(tmp_path / "out", "coco", shown())
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    area = content["annotations"][0]["segmentation"]
    assert pixels(runs(area["counts"], tuple(area["size"]), (24, 32))).sum() == content["annotations"][0]["area"]


def test_an_image_with_tags_and_no_mask_is_not_written_as_one_of_no_class(tmp_path: Path) -> None:
    export = export_of(shown())
    image = OUTPUTS / "field_1.jpg"
    bare = [Picture(name=name, image=image, split="train", tags=tags) for name, tags in (("a", ("crop",)), ("b", ()))]
    export.pictures = [*export.pictures, *bare]
    told = write_export(tmp_path / "out", export, WRITERS["yolo"])
    assert told["without_mask"] == 1
    assert sorted(path.stem for path in (tmp_path / "out" / "labels" / "train").iterdir()) == ["b", "field_1"]


def test_tags_that_no_pixel_has_are_counted(tmp_path: Path) -> None:
    label = np.where(shown() == 2, 0, shown()).astype(np.uint8)
    picture = Picture(name="a", image=OUTPUTS / "field_1.jpg", split="x", tags=("crop", "weed"), label=lambda: label)
    export = Export(classes=("crop", "weed"), pictures=[picture], masks=True)
    assert write_export(tmp_path / "out", export, WRITERS["coco"])["tags_differ"] == 1
