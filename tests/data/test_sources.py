"""Images with a class that come from another source than those without are told by the fact that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.dataset import open_data
from wsss.data.sources import class_sources, separability


def photo(seed: int, size: tuple[int, int] = (40, 30), level: int = 128) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(level - 60, level + 60, (size[1], size[0], 3), dtype=np.uint8))


def alike(path: Path, seed: int, cat: bool) -> None:
    width, height, quality = np.random.default_rng(100 + seed).integers((40, 30, 80), (46, 35, 84)).tolist()
    photo(seed, (width, height)).save(path.with_suffix(".jpg"), quality=quality)


def another_format(path: Path, seed: int, cat: bool) -> None:
    photo(seed).save(path.with_suffix(".png" if cat else ".bmp"))


def another_quality(path: Path, seed: int, cat: bool) -> None:
    photo(seed).save(path.with_suffix(".jpg"), quality=90 if cat else 75)


def another_size(path: Path, seed: int, cat: bool) -> None:
    photo(seed, (40, 30 + seed % 3 if cat else 36 + seed % 3)).save(path.with_suffix(".bmp"))


def another_light(path: Path, seed: int, cat: bool) -> None:
    photo(seed, level=160 if cat else 100).save(path.with_suffix(".bmp"))


def another_camera(path: Path, seed: int, cat: bool) -> None:
    exif = Image.Exif()
    exif[0x0110] = "EOS" if cat else "D70"
    photo(seed).save(path.with_suffix(".jpg"), exif=exif)


Save = Callable[[Path, int, bool], None]


@pytest.mark.parametrize(
    ("save", "fact"),
    [
        (alike, None),
        (another_format, "format"),
        (another_quality, "JPEG quality"),
        (another_size, "height"),
        (another_light, "brightness"),
        (another_camera, "camera (EXIF)"),
    ],
)
def test_the_fact_is_named(tmp_path: Path, save: Save, fact: str | None) -> None:
    lines = ["image,labels"]
    for seed in range(40):
        cat = bool(seed * 7 % 3 == 0)
        save(tmp_path / f"p{seed}", seed, cat)
        lines.append(f"p{seed},{'cat' if cat else 'dog' if seed % 2 else ''}")
    (tmp_path / "tags.csv").write_text("\n".join(lines))
    told = {one.what.split("'")[1]: one.what for one in class_sources(open_data(tmp_path))}
    if fact is None:
        assert told == {}
    else:
        assert fact in told["cat"]
        assert "the network may learn the source" in told["cat"]


def test_separability_by_hand() -> None:
    has_N = np.array([True, False] * 20)
    assert separability(has_N.astype(float), has_N) == 1.0
    assert separability(np.ones(40), has_N) == 0.5
    far_N = np.where(has_N, np.tile([-1.0, 0.0, 1.0, 0.0], 10), 0.0)  # both ends have the class: no threshold tells
    assert separability(far_N, has_N) == 1.0


def test_chance_is_near_a_half() -> None:
    rng = np.random.default_rng(0)
    areas = [separability(rng.normal(size=300), rng.random(300) < 0.2) for _ in range(50)]
    assert abs(float(np.mean(areas)) - 0.5) < 0.03
    assert max(areas) < 0.7
