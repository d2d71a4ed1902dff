"""Shape suffixes: H rows, W columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.masks import read_mask
from wsss.data.painting import TELLING_SHARE, TEXTURES
from wsss.data.readers.folder import open_tag_file, read_folder
from wsss.data.scenes import VAL_OFFSET, Scene, SceneSettings, make_scene, write_scenes
from wsss.errors import UsageError

SEEDS = st.integers(0, 2**32)
INDICES = st.integers(0, 2 * VAL_OFFSET)
SMALL = SceneSettings(sizes=((40, 56),))


def classes_of(scene: Scene) -> list[int]:
    return sorted(set(scene.mask_HW.ravel().tolist()) - {0})


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
