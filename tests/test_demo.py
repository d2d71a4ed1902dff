"""The overview picture of the demo; the whole demo runs in the tests of the commands."""

from pathlib import Path

import numpy as np

from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, PALETTE, read_mask, write_mask
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.demo import TILE_WIDTH, overview
from wsss.outputs.pictures import GAP, key


def test_one_key_for_all_rows(tmp_path: Path) -> None:
    """The key has the classes of all label maps, also those that are only in a prediction."""
    write_scenes(tmp_path / "scenes", train=1, val=2, seed=0, settings=SceneSettings(min_classes=2, max_classes=2))
    unseen = open_data(tmp_path / "scenes", split="val")
    held = {IGNORE_INDEX}
    for record in unseen.records:
        mask = unseen.mask_path(record)
        assert mask is not None
        label_HW = read_mask(mask)
        held |= set(np.unique(label_HW).tolist())
        write_mask(tmp_path / "pseudo" / "labels" / f"{record.name}.png", np.full_like(label_HW, IGNORE_INDEX))
        write_mask(tmp_path / "masks" / "labels" / f"{record.name}.png", np.full_like(label_HW, 4))
    drawn_HW3 = overview(unseen, tmp_path)
    key_HW3 = key(np.array(sorted(held | {4}), dtype=np.uint8), unseen.classes, 4 * (TILE_WIDTH + GAP) + GAP)
    assert (drawn_HW3[-len(key_HW3) :] == key_HW3).all()
    assert (key_HW3 == PALETTE[4]).all(axis=2).any()
