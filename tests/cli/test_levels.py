"""16-bit images: the range that becomes black and white is told or found, said, and kept in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from wsss.config import Config, resolve, to_yaml
from wsss.data.dataset import open_data
from wsss.data.facts import examine_image
from wsss.data.images import Levels, decode_image, levelled
from wsss.data.index import keep_readable
from wsss.data.levels import as_text, parse_levels, with_levels
from wsss.data.records import Records
from wsss.errors import UsageError
from wsss.inference.inputs import image_array
from wsss.inference.settings import resolve_for
from wsss.models.checkpoint import load_network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent
from wsss.training.start import train_classifier


def twelve_bits(seed: int = 0, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint16]:
    image: NDArray[np.uint16] = np.random.default_rng(seed).integers(0, 4096, (*size, 3)).astype(np.uint16)
    image[0, 0] = 4095
    return image


def write(path: Path, image_HW3: NDArray[np.uint16]) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image_HW3[..., ::-1])
    return path.read_bytes()


@pytest.mark.parametrize(
    ("value", "levels", "expected"),
    [
        *((0, (0, 65535), 0), (255, (0, 65535), 0), (256, (0, 65535), 1), (65535, (0, 65535), 255)),
        *((0, (0, 4095), 0), (15, (0, 4095), 0), (16, (0, 4095), 1), (4095, (0, 4095), 255), (60000, (0, 4095), 255)),
        *((99, (100, 355), 0), (100, (100, 355), 0), (101, (100, 355), 1), (355, (100, 355), 255)),
    ],
)
def test_by_hand(value: int, levels: Levels, expected: int) -> None:
    assert levelled(np.array([[value]], np.uint16), levels).item() == expected


@given(st.integers(9, 16), st.integers(0, 2**31))
def test_of_all_bits_in_use_the_upper_8_are_kept(bits: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**bits, 50).astype(np.uint16)
    assert (levelled(values, (0, 2**bits - 1)) == values >> (bits - 8)).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_files_of_16_bits(tmp_path: Path, ending: str) -> None:
    deep_HW3 = twelve_bits()
    content = write(tmp_path / f"a.{ending}", deep_HW3)
    facts = examine_image(content, tmp_path / "a")
    assert (facts.bits, facts.size) == (12, (48, 64))
    assert (decode_image(content, tmp_path, (0, 4095)) == deep_HW3 >> 4).all()
    plain_HW3 = decode_image(content, tmp_path)  # OpenCV rounds some formats
    assert (np.abs(plain_HW3.astype(int) - (deep_HW3 >> 8)) <= 1).all()
    assert (image_array(tmp_path / f"a.{ending}", (0, 4095)) == deep_HW3 >> 4).all()
    grey = Image.fromarray(deep_HW3[..., 0])
    assert (image_array(grey, (0, 4095)) == (deep_HW3[..., :1] >> 4)).all()
    Image.fromarray((deep_HW3 >> 4).astype(np.uint8)).save(tmp_path / "b.png")
    shallow = (tmp_path / "b.png").read_bytes()
    assert examine_image(shallow, tmp_path).bits == 8
    assert (decode_image(shallow, tmp_path, (0, 4095)) == deep_HW3 >> 4).all()


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """12 photos of 12 bits; those with a cat are bright."""
    root = tmp_path / "tiles"
    rows = ["image,labels,split"]
    for number in range(16):
        image_HW3 = twelve_bits(number, (40, 40)) // (1 if number % 2 else 4)
        image_HW3[0, 0] = 4095 if number else 1
        write(root / f"t{number}.tif", image_HW3)
        rows.append(f"t{number}.tif,{'cat' if number % 2 else ''},{'val' if number < 4 else 'train'}")
    (root / "tags.csv").write_text("\n".join(rows))
    return root


def scanned(root: Path, split: str) -> Records:
    return keep_readable(open_data(root, split=split))[0].columns


def test_the_bits_in_use_are_those_of_all_images(tiles: Path) -> None:
    said: list[str] = []
    records = with_levels(scanned(tiles, "train"), "auto", said.append)
    assert (records.levels, records[3].levels, records.take(np.arange(2)).levels) == ((0, 4095),) * 3
    (line,) = said
    assert line.startswith("16-bit images: 0 is black and 4095 is white (the images use 12 bits; --range LOW,HIGH")
    told = with_levels(scanned(tiles, "train"), "10,300", said.append)
    assert told.levels == (10, 300)
    assert "10 is black and 300 is white (as --range says" in said[-1]
    assert (as_text((10, 300)), as_text(None), parse_levels("10,300"), parse_levels("auto")) == (
        "10,300",
        "auto",
        (10, 300),
        None,
    )
    Image.new("RGB", (8, 8)).save(tiles / "plain.png")
    (tiles / "tags.csv").write_text("image,labels\nplain.png,cat\n")
    for path in tiles.glob("*.tif"):
        path.unlink()
    assert with_levels(scanned(tiles, "all"), "auto", said.append).levels is None
    assert len(said) == 2


@pytest.mark.parametrize("text", ["1", "4,4", "9,4", "0,70000", "a,b", "-1,5", "0,4095,1", ""])
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        resolve(None, [f"data.levels='{text}'"])


def test_a_run_keeps_what_was_found(tiles: Path, tmp_path: Path, tiny_config: Any) -> None:
    """Predicted pictures are read in the range of the training, though they use fewer bits."""
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    config = tiny_config(data__root=tiles, classify__epochs=1)
    train_classifier(config, tmp_path / "run", Saying())
    assert sum("4095 is white" in text for text in said) == 2  # both splits
    _, trained, _ = load_network(tmp_path / "run")
    assert trained.data.levels == "0,4095"
    assert resolve_for(trained).data.levels == "0,4095"
    assert resolve_for(trained, None, (), {"data.levels": "auto"}).data.levels == "auto"
    assert resolve_for(config.model_copy(update={"data": Config().data})).data.levels == "auto"


def test_through_the_commands(tiles: Path, tmp_path: Path, tiny_config: Any, wsss: Callable[..., Any]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(to_yaml(tiny_config(data__root=tiles, segment__epochs=1, segment__cls_share=0.3)))
    assert wsss("train-seg", "-c", config, "-o", tmp_path / "seg").status == 0
    dark = tmp_path / "dark"
    for number in range(2):
        write(dark / f"d{number}.png", twelve_bits(number) // 9)
    done = wsss("predict", tmp_path / "seg", dark, "-o", tmp_path / "masks")
    assert "0 is black and 4095 is white (as --range says" in done.err
    assert read_manifest(tmp_path / "masks")["range"] == [0, 4095]
    done = wsss("predict", tmp_path / "seg", dark, "-o", tmp_path / "masks", "--range", "0,500")
    assert (done.status, "other settings: range" in done.err) == (2, True)
