"""Small data folders that the tests of the readers bend and break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_photo() -> Callable[..., Path]:
    def write(path: Path, height: int = 6, width: int = 9) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(path.name))
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def folder_root(tmp_path: Path, write_photo: Callable[..., Path]) -> Path:
    """Four photos in three places: a.jpg, b.png, street/c.JPG, street/far/d.jpg, and their table."""
    root = tmp_path / "photos"
    for file in ("a.jpg", "b.png", "street/c.JPG", "street/far/d.jpg"):
        write_photo(root / file)
    (root / "tags.csv").write_text(
        "image,labels,split\na.jpg,dog cat,train\nb,cat,val\nstreet/c.jpg,,train\nstreet/far/d,dog,train\n"
    )
    return root


@pytest.fixture
def voc_root(tmp_path: Path, write_photo: Callable[..., Path]) -> Path:
    """Four photos in the layout of PASCAL VOC with a table, and masks for two of them."""
    root = tmp_path / "VOC2012"
    for name in ("n1", "n2", "n3", "n4"):
        write_photo(root / "JPEGImages" / f"{name}.jpg")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("n3\nn1\n")
    (lists / "val.txt").write_text("n2\n")
    (root / "classes.txt").write_text("sheep\ncat\ndog\n")
    (root / "tags.csv").write_text("image,labels\nn1,dog cat\nn2,cat\nn3,\nn4,sheep\n")
    masks = root / "SegmentationClass"
    masks.mkdir()
    Image.fromarray(np.array([[0, 3, 255]], dtype=np.uint8)).save(masks / "n1.png")
    Image.fromarray(np.array([[2, 2, 1]], dtype=np.uint8)).save(masks / "n2.png")
    return root
