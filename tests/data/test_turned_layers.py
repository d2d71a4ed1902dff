"""Images with an EXIF orientation whose masks or saliency maps may lie another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.check import inspect_data
from wsss.data.masks import write_mask
from wsss.reporting import Silent


def turned(root: Path, turn: int, size: tuple[int, int], layer: tuple[int, int] | None = None) -> Path:
    """A data folder of one image, stored as (H, W), with a mask and a saliency map, of its upright size or another."""
    exif = Image.Exif()
    exif[0x0112] = turn
    (root / "images").mkdir(parents=True)
    image_HW3 = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(image_HW3).save(root / "images" / "a.png", exif=exif)
    upright = size[::-1] if turn > 4 else size
    for folder in ("masks", "Saliency"):
        write_mask(root / folder / "a.png", np.full(layer or upright, 200 if folder == "Saliency" else 1, np.uint8))
    (root / "tags.csv").write_text("image,labels\na,cat\n")
    return root


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("size", [(20, 30), (24, 24)])
def test_turns_that_keep_the_size_are_warned_of(tmp_path: Path, turn: int, size: tuple[int, int]) -> None:
    root = turned(tmp_path / "photos", turn, size)
    inspection = inspect_data(root, Silent(), saliency=root / "Saliency")
    hidden = turn in (2, 3, 4) or (turn > 4 and size == (24, 24))
    assert inspection.counts() == ({"mask-turned": 1, "saliency-turned": 1} if hidden else {})
    assert inspection.count("error") == 0
    assert all(f"the EXIF orientation {turn}" in finding.what for finding in inspection.findings)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_quarter_turn_is_seen_by_its_size(tmp_path: Path, turn: int) -> None:
    root = turned(tmp_path / "photos", turn, (20, 30), layer=(20, 30))
    assert inspect_data(root, Silent(), saliency=root / "Saliency").counts() == {"mask-size": 1, "saliency-size": 1}


def test_a_mask_with_an_orientation_of_its_own(tmp_path: Path) -> None:
    root = turned(tmp_path / "photos", 1, (20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ones((20, 30), np.uint8)).save(root / "masks" / "a.png", exif=exif)
    (finding,) = inspect_data(root, Silent()).findings
    assert (finding.kind, finding.what) == ("mask-turned", "its own EXIF orientation 6 is not applied")
