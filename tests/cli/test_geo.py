"""GeoTIFF: bands, pixels without data, and coordinates that label maps keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsss.config import AugmentSection, Reading, resolve, to_yaml
from wsss.data import geo
from wsss.data.augment import TrainingImages
from wsss.data.dataset import open_data
from wsss.data.index import keep_readable, scan_images
from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.errors import DataError, MachineError, UsageError
from wsss.models.checkpoint import build_from, load_network
from wsss.training.segment import SegmentStep

rasterio = pytest.importorskip("rasterio")
HEIGHT, WIDTH, BANDS = 40, 56, 5
PLACE = rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)


def write(path: Path, dtype: str = "uint16", *, seed: int = 0, nodata: float | None = 0) -> NDArray[Any]:
    """Five bands; the upper left quarter has no data."""
    values_NHW = np.random.default_rng(seed).integers(1, 4000 if dtype != "uint8" else 250, (BANDS, HEIGHT, WIDTH))
    values_NHW = values_NHW.astype(dtype)
    if nodata is not None:
        values_NHW[:, : HEIGHT // 2, : WIDTH // 2] = nodata
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=HEIGHT,
        width=WIDTH,
        count=BANDS,
        dtype=dtype,
        nodata=nodata,
        crs="EPSG:32632",
        transform=PLACE,
    ) as file:
        file.write(values_NHW)
    return values_NHW


@pytest.fixture
def scenes_of_bands(tmp_path: Path) -> Path:
    root = tmp_path / "tiles"
    rows = ["image,labels,split"]
    for number in range(12):
        write(root / f"t{number}.tif", seed=number)
        tags, split = ("wood", "wood;road", "")[number % 3], "val" if number < 4 else "train"
        rows.append(f"t{number}.tif,{tags},{split}")
    (root / "tags.csv").write_text("\n".join(rows))
    return root


@pytest.mark.parametrize(("bands", "order"), [((4, 3, 2), (3, 2, 1)), ((5,), (4, 4, 4))])
def test_bands_that_are_chosen(tmp_path: Path, bands: tuple[int, ...], order: tuple[int, ...]) -> None:
    values_NHW = write(tmp_path / "a.tif")
    (tmp_path / "tags.csv").write_text("image,labels\na.tif,wood\n")
    tagged, bad = keep_readable(open_data(tmp_path, reading=Reading(bands=bands)))
    assert not bad
    (record,) = tagged.records
    assert (record.size, tagged.columns.bits) == ((HEIGHT, WIDTH), 12)
    assert (record.decode() == (values_NHW[[*order]] >> 8).transpose(1, 2, 0)).all()
    valid_HW = record.valid()
    assert valid_HW is not None
    assert (valid_HW == (values_NHW[0] > 0)).all()


def test_numbers_without_a_range_need_one(tmp_path: Path) -> None:
    values_NHW = write(tmp_path / "a.tif", "float32", nodata=-9999)
    content = (tmp_path / "a.tif").read_bytes()
    with pytest.raises(DataError, match="its values are float32: --range LOW,HIGH"):
        geo.read_bands(content, tmp_path, (1,), None)
    read_HW3 = geo.read_bands(content, tmp_path, (1,), (0, 4000))
    valid_HW = values_NHW[0] >= 0
    assert (read_HW3[..., 0][valid_HW] == (values_NHW[0][valid_HW] / 4000 * 256).astype(int)).all()
    assert (read_HW3[~valid_HW] == 0).all()
    with pytest.raises(DataError, match="it has 5 bands, --bands asks for 6"):
        geo.read_bands(content, tmp_path, (6,), None)
    with pytest.raises(DataError):
        geo.read_bands(content[:200], tmp_path, (1,), None)


def test_without_bands_the_remedy_is_named(scenes_of_bands: Path) -> None:
    scan = scan_images(open_data(scenes_of_bands, split="train").records)
    assert len(scan.broken()) == 8
    assert "--bands R,G,B" in scan.broken()[0]


def test_without_rasterio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    monkeypatch.setattr(geo, "find_spec", lambda name: None)
    with pytest.raises(MachineError) as caught:
        geo.read_bands(b"", tmp_path, (1,), None)
    assert caught.value.fix == "pip install 'wsss[geo]'"
    assert geo.remark(["b.png", "a.TIF"]).startswith("TIFF files: pixels without data are read as if they had some")
    assert geo.remark(["b.png"]) == ""


@pytest.mark.parametrize("text", ["0", "1,2", "1,2,3,4", "a"])
def test_other_bands_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        resolve(None, [f"data.bands=[{text}]"])


def test_pixels_without_data_are_not_trained(scenes_of_bands: Path, tiny_config: Any) -> None:
    """Their labels change no loss."""
    config = tiny_config(augment__flip=0, augment__min_area=1.0, segment__weight_energy=0)
    tagged, _ = keep_readable(open_data(scenes_of_bands, split="train", reading=Reading(bands=(1, 2, 3))))
    images = TrainingImages(tagged, AugmentSection(size=32, min_area=1, flip=0, jitter=0), seed=0)
    sample = images[0, 0]
    assert sample["valid"].shape == (32, 32)
    assert 0.6 < sample["valid"].float().mean() < 0.9
    network = build_from(config, tagged.classes, decoder=True)
    step = SegmentStep(network, config, 10, labels_given=True, started=True)
    batch = {key: value[None] for key, value in sample.items()}
    label_BHW = torch.zeros(1, 32, 32, dtype=torch.uint8)
    other_BHW = torch.where(batch["valid"] > 0, label_BHW, torch.ones_like(label_BHW))
    step.eval()
    losses = [step({**batch, "label": label}, 0)["segmentation"].item() for label in (label_BHW, other_BHW)]
    assert losses[0] == losses[1]
    without = {key: value for key, value in batch.items() if key != "valid"}
    assert step({**without, "label": other_BHW}, 0)["segmentation"].item() != losses[0]


def test_through_the_commands(
    wsss: Callable[..., Any], scenes_of_bands: Path, tmp_path: Path, tiny_config: Any
) -> None:
    config = tmp_path / "c.yaml"
    settings = tiny_config(data__root=scenes_of_bands, data__bands=[4, 3, 2], segment__epochs=1, segment__cls_share=0.3)
    config.write_text(to_yaml(settings))
    done = wsss("train-seg", "-c", config, "-o", tmp_path / "seg")
    assert done.status == 0, done.err
    assert "4095 is white (the images use 12 bits" in done.err
    _, trained, _ = load_network(tmp_path / "seg")
    assert (trained.data.bands, trained.data.levels) == ((4, 3, 2), "0,4095")
    common = ("--bands", "4,3,2", "--no-overlays")
    done = wsss("predict", tmp_path / "seg", scenes_of_bands, "--split", "val", "-o", tmp_path / "masks", *common)
    assert done.status == 0, done.err
    label_HW = read_mask(tmp_path / "masks" / "labels" / "t0.png")
    assert label_HW.shape == (HEIGHT, WIDTH)
    assert (label_HW[: HEIGHT // 2, : WIDTH // 2] == IGNORE_INDEX).all()
    assert (label_HW[HEIGHT // 2 :] != IGNORE_INDEX).all()
    done = wsss("data", "convert", tmp_path / "masks", "-o", tmp_path / "geo", "--to", "geotiff", "--polygons")
    assert done.status == 0, done.err
    with rasterio.open(tmp_path / "geo" / "t0.tif") as file:
        assert (file.crs.to_string(), file.transform, file.nodata) == ("EPSG:32632", PLACE, 255)
        assert (file.read(1) == label_HW).all()
    found = json.loads((tmp_path / "geo" / "t0.geojson").read_text())
    assert found["crs"]["properties"]["name"] == "EPSG:32632"
    inside = [point for one in found["features"] for ring in one["geometry"]["coordinates"] for point in ring]
    left, bottom, right, top = 500_000, 4_600_000 - 10 * HEIGHT, 500_000 + 10 * WIDTH, 4_600_000
    assert all(left <= x <= right and bottom <= y <= top for x, y in inside)
    assert {one["properties"]["class"] for one in found["features"]} <= {"wood", "road"}
    pseudo = wsss(
        "make-pseudo", tmp_path / "seg", "--data", scenes_of_bands, "-o", tmp_path / "pseudo", "--bands", "4,3,2"
    )
    assert pseudo.status == 0, pseudo.err
    assert (read_mask(tmp_path / "pseudo" / "labels" / "t5.png")[:20, :28] == IGNORE_INDEX).all()


def test_pictures_without_coordinates_have_no_geotiff(wsss: Callable[..., Any], tmp_path: Path, scenes: Path) -> None:
    done = wsss("data", "convert", scenes, "-o", tmp_path / "geo", "--to", "geotiff")
    assert (done.status, done.error()[0]) == (2, "no picture of these label maps has coordinates")
