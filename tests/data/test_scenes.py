"""Shape suffixes: H rows, W columns; h, w those of the box around one body."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.folder import open_tag_file, read_folder
from wsss.data.masks import read_mask
from wsss.data.scenes import (
    GROUNDS,
    MIN_SEEN,
    TELLING_SHARE,
    TEXTURES,
    VAL_OFFSET,
    Canvas,
    Scene,
    SceneSettings,
    fill,
    make_scene,
    place,
    wear,
    write_scenes,
)
from wsss.errors import UsageError

SEEDS = st.integers(0, 2**32)
INDICES = st.integers(0, 2 * VAL_OFFSET)
SMALL = SceneSettings(sizes=((40, 56),))


def classes_of(scene: Scene) -> list[int]:
    return sorted(set(scene.mask_HW.ravel().tolist()) - {0})


def blank(height: int = 96, width: int = 128) -> Canvas:
    return Canvas(np.zeros((height, width, 3), dtype=np.float32))


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@settings(max_examples=25, deadline=None)
@given(
    index=INDICES,
    seed=SEEDS,
    size=st.tuples(st.integers(32, 80), st.integers(32, 80)),
    count=st.integers(1, len(TEXTURES)),
)
def test_image_mask_and_tags_agree(index: int, seed: int, size: tuple[int, int], count: int) -> None:
    names = tuple(f"class{k}" for k in range(count))
    scene = make_scene(index, seed, SceneSettings(classes=names, sizes=(size,), max_classes=4))
    assert scene.image_HW3.shape == (*size, 3)
    assert scene.mask_HW.shape == scene.telling_HW.shape == size
    assert scene.image_HW3.dtype == scene.mask_HW.dtype == np.uint8
    assert scene.telling_HW.dtype == np.bool_
    assert [tag + 1 for tag in scene.tags] == classes_of(scene)
    assert max(scene.tags, default=0) < count


@settings(max_examples=25, deadline=None)
@given(index=INDICES, seed=SEEDS)
def test_a_class_shows_its_texture_on_at_most_half_of_itself(index: int, seed: int) -> None:
    scene = make_scene(index, seed, SceneSettings(max_classes=4, twin_chance=0.5))
    assert not scene.telling_HW[scene.mask_HW == 0].any()
    for label in classes_of(scene):
        assert TELLING_SHARE[0] <= scene.telling_HW[scene.mask_HW == label].mean() <= TELLING_SHARE[1]


@settings(max_examples=10, deadline=None)
@given(index=INDICES, seed=SEEDS)
def test_seed_and_index_make_the_scene(index: int, seed: int) -> None:
    one, again = make_scene(index, seed, SMALL), make_scene(index, seed, SMALL)
    assert np.array_equal(one.image_HW3, again.image_HW3)
    assert np.array_equal(one.mask_HW, again.mask_HW)
    assert np.array_equal(one.telling_HW, again.telling_HW)
    for other in (make_scene(index + 1, seed, SMALL), make_scene(index, seed + 1, SMALL)):
        assert not np.array_equal(one.image_HW3, other.image_HW3)


def test_scenes_hold_what_the_settings_ask_for() -> None:
    scenes = [make_scene(index, 3, SceneSettings(sizes=((40, 40), (32, 48)))) for index in range(200)]
    assert {len(scene.tags) for scene in scenes} == {1, 2, 3}
    assert {scene.mask_HW.shape for scene in scenes} == {(40, 40), (32, 48)}
    counts = np.bincount([tag for scene in scenes for tag in scene.tags], minlength=4)
    assert counts.min() > 200 / 4
    empty = [make_scene(index, 3, SceneSettings(classes=("bee",), min_classes=0)) for index in range(40)]
    assert 0 < sum(scene.tags == () for scene in empty) < 40


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


def test_written_scenes_read_back(tmp_path: Path) -> None:
    write_scenes(tmp_path, train=6, val=3, seed=5, settings=SMALL)
    assert (tmp_path / "classes.txt").read_text().split() == list(SMALL.classes)
    table = open_tag_file(tmp_path, tmp_path / "tags.csv")
    assert table.splits() == ("train", "val")
    for split, first, count in (("train", 0, 6), ("val", VAL_OFFSET, 3)):
        listing = read_folder(tmp_path, table, split)
        assert listing.mask_folder == tmp_path / "masks"
        assert len(listing.images) == count
        for k, listed in enumerate(listing.images):
            scene = make_scene(first + k, 5, SMALL)
            assert listed.labels == tuple(SMALL.classes[tag] for tag in scene.tags)
            assert np.array_equal(read_mask(tmp_path / "masks" / f"{listed.name}.png"), scene.mask_HW)


def test_more_training_scenes_leave_the_others_as_they_were(tmp_path: Path) -> None:
    write_scenes(tmp_path / "few", train=2, val=2, seed=5, settings=SMALL)
    write_scenes(tmp_path / "many", train=5, val=2, seed=5, settings=SMALL)
    few, many = files_of(tmp_path / "few"), files_of(tmp_path / "many")
    scenes = [name for name in few if name.startswith(("images", "masks"))]
    assert len(scenes) == 8
    assert all(few[name] == many[name] for name in scenes)


def test_a_smaller_set_replaces_a_larger_one(tmp_path: Path) -> None:
    write_scenes(tmp_path / "twice", train=4, val=2, seed=1, settings=SMALL)
    write_scenes(tmp_path / "twice", train=2, val=1, seed=5, settings=SMALL)
    write_scenes(tmp_path / "once", train=2, val=1, seed=5, settings=SMALL)
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "once")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"classes": ()}, "0 names"),
        ({"classes": tuple("abcdefghi")}, "9 names"),
        ({"classes": ("bee", "bee")}, "must differ"),
        ({"classes": ("queen bee",)}, "single words"),
        ({"sizes": ()}, "at least 32"),
        ({"sizes": ((96, 96), (31, 96))}, "31"),
        ({"min_classes": 3, "max_classes": 2}, "min_classes 3"),
        ({"min_classes": 0, "max_classes": 0}, "max_classes 0"),
    ],
)
def test_settings_that_paint_nothing_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        SceneSettings(**values)
