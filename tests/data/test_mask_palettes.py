"""Masks whose palettes differ: the programs that wrote them may number the classes anew in each mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from wsss.data.check import inspect_data
from wsss.data.findings import Finding
from wsss.data.masks import IGNORE_INDEX, mask_colours, write_mask
from wsss.reporting import Silent

BLACK, RED, GREEN = (0, 0, 0), (128, 0, 0), (0, 128, 0)


def write(root: Path, *palettes: tuple[tuple[int, int, int], ...] | None) -> list[Finding]:
    """Photos with masks of two indices in these palettes (None: grey); the findings on palettes."""
    (root / "masks").mkdir(parents=True)
    lines = ["image,labels"]
    for number, palette in enumerate(palettes):
        Image.new("RGB", (24, 20), (50 * number, 3, 3)).save(root / f"{number}.png")
        mask = Image.fromarray(np.array([[0, 1] * 12] * 20, np.uint8))
        if palette is not None:
            mask.putpalette([value for colour in palette for value in colour])
        mask.save(root / "masks" / f"{number}.png")
        lines.append(f"{number}.png,cat")
    (root / "tags.csv").write_text("\n".join(lines))
    return [one for one in inspect_data(root, Silent()).findings if one.kind == "mask-palette"]


def test_one_palette_or_none_is_right(tmp_path: Path) -> None:
    assert write(tmp_path / "a", (BLACK, RED), (BLACK, RED, GREEN), None) == []


def test_another_palette_is_named_once(tmp_path: Path) -> None:
    found = write(tmp_path / "a", (BLACK, RED), (BLACK, GREEN), (RED, BLACK))
    assert len(found) == 1
    assert found[0].what.startswith("2 masks give other colours to indices than 0.png does (index 1 is #800000 there)")
    assert found[0].place.path.name == "1.png"


def test_colours_of_indices(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.png", np.array([[0, 1, IGNORE_INDEX]], np.uint8))
    assert mask_colours(tmp_path / "a.png", (0, 1)) == {0: BLACK, 1: RED}
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "b.png")
    assert mask_colours(tmp_path / "b.png", (0,)) == {}
