"""Shape suffixes: H rows, W columns; h, w those of the box around one body."""

from typing import Any

import numpy as np
import pytest

from wsss.data.painting import GROUNDS, MIN_SEEN, TEXTURES, Canvas, fill, place, wear


def blank(height: int = 96, width: int = 128) -> Canvas:
    return Canvas(np.zeros((height, width, 3), dtype=np.float32))


def test_a_stone_has_no_class_and_no_texture() -> None:
    rng = np.random.default_rng(0)
    canvas = blank()
    stone = place(rng, 0, 96, 128)
    assert canvas.accepts(stone)
    assert (canvas.owner_HW == 1).sum() > 50
    assert canvas.mask().max() == 0
    assert not canvas.telling_HW.any()
    skin_3 = np.array([0.2, 0.4, 0.6], dtype=np.float32)
    assert np.ptp(wear(rng, stone, skin_3), axis=(0, 1)).max() == 0


@pytest.mark.parametrize("label", range(1, len(TEXTURES) + 1))
def test_an_animal_wears_its_texture_on_the_cap_alone(label: int) -> None:
    rng = np.random.default_rng(label)
    body = place(rng, label, 96, 128)
    skin_3 = np.array([0.5, 0.5, 0.5], dtype=np.float32)
    worn_hw3 = wear(rng, body, skin_3)
    assert np.abs(worn_hw3[body.cap_hw == 0] - skin_3).max() == 0
    marks_hw = np.abs(worn_hw3 - np.array(TEXTURES[label - 1].colour, dtype=np.float32)).max(axis=2) < 0.05
    assert 0.1 < marks_hw[(body.cap_hw == 1) & (body.alpha_hw == 1)].mean() < 0.9


def test_nothing_hides_an_animal() -> None:
    rng = np.random.default_rng(0)
    canvas, body = blank(), place(rng, 1, 96, 128)
    while not canvas.accepts(body):
        body = place(rng, 1, 96, 128)
    before_HW = canvas.owner_HW.copy()
    assert not canvas.accepts(body)  # it would lie exactly on itself
    assert np.array_equal(canvas.owner_HW, before_HW)
    assert (canvas.mask() == 1).sum() >= MIN_SEEN * body.area


def test_fill_is_the_share_of_each_pixel() -> None:
    square = np.array([[1.5, 1.5], [4.0, 1.5], [4.0, 3.5], [1.5, 3.5]])  # cuts the pixels of column 4 in two
    wanted_HW = np.zeros((6, 7))
    wanted_HW[2:4] = [0, 0, 1, 1, 0.5, 0, 0]
    assert fill(square, 6, 7) == pytest.approx(wanted_HW, abs=0.3)
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = 32 + 24 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    assert fill(disc, 64, 64).sum() == pytest.approx(np.pi * 24**2, rel=0.02)


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_pattern_has_both_signs_and_repeats(texture: Any) -> None:
    v_HW, u_HW = np.mgrid[-3:3:64j, -3:3:64j].astype(np.float32)
    weight_HW = texture.pattern(u_HW, v_HW)
    assert -1 <= weight_HW.min() < -0.9
    assert 0.9 < weight_HW.max() <= 1
    assert not np.allclose(weight_HW, weight_HW.mean(), atol=0.5)
    along_W = np.linspace(7, 12, 32, dtype=np.float32)
    zeros_W = np.zeros_like(along_W)
    turned_W = along_W + np.float32(2 * np.pi)
    assert texture.pattern(turned_W, zeros_W) == pytest.approx(texture.pattern(along_W, zeros_W), abs=1e-3)


@pytest.mark.parametrize("ground", GROUNDS)
def test_grounds_fill_any_frame(ground: Any) -> None:
    weight_HW = ground(np.random.default_rng(0), 40, 57)
    assert weight_HW.shape == (40, 57)
    assert weight_HW.dtype == np.float32
    assert 0.02 < weight_HW.std() < 0.5
