"""`wsss data pack`: shards give bit for bit what the folder gives, in every stage."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.data.dataset import list_splits, open_data
from wsss.data.records import data_digest
from wsss.models.checkpoint import read_checkpoint
from wsss.plain_yaml import dump_yaml

Program = Callable[..., Any]


@pytest.fixture
def packed(wsss: Program, scenes: Path, tmp_path: Path) -> Path:
    out = tmp_path / "packed"
    done = wsss("data", "pack", scenes, "-o", out, "--masks", "--json")
    assert done.status == 0
    assert json.loads(done.out)["shards"] == 2
    return out


def test_shards_are_read_as_the_folder(scenes: Path, packed: Path) -> None:
    assert sorted(path.name for path in packed.iterdir()) == [
        "SHA256SUMS",
        "classes.txt",
        "train-000000.tar",
        "val-000000.tar",
    ]
    assert list_splits(packed) == list_splits(scenes)
    for split in list_splits(scenes):
        theirs, ours = open_data(scenes, split=split), open_data(packed, split=split)
        assert data_digest(theirs) == data_digest(ours)
        for one, other in zip(theirs.records, ours.records, strict=True):
            assert (theirs.truth(one) == ours.truth(other)).all()  # type: ignore[union-attr]


def test_the_same_data_give_the_same_bytes(wsss: Program, scenes: Path, packed: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    time.sleep(0.01)
    assert wsss("data", "pack", scenes, "-o", tmp_path / "again", "--masks").status == 0
    assert wsss("data", "convert", scenes, "-o", small, "--to", "webdataset").status == 0
    for path in packed.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert not open_data(small, split="val").has_masks()


def test_names_with_dots_unknown_tags_and_several_shards(wsss: Program, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    rows = ["image,bee,wasp,split"]
    for number in range(30):
        path = root / "day.1" / f"p.{number}_jpg.rf.ab.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_HW3 = np.random.default_rng(number).integers(0, 256, (150, 150, 3), dtype=np.uint8)
        Image.fromarray(noise_HW3).save(path)
        rows.append(f"day.1/{path.name},{'?' if number % 3 else 1},{number % 2},{'val' if number < 5 else 'x.y'}")
    (root / "tags.csv").write_text("\n".join(rows))
    done = wsss("data", "pack", root, "-o", tmp_path / "out", "--shard-mb", "1", "--json")
    assert json.loads(done.out)["shards"] == 3
    for split in ("val", "x.y"):
        assert data_digest(open_data(root, split=split)) == data_digest(open_data(tmp_path / "out", split=split))


def test_every_stage_gives_the_same(
    wsss: Program, scenes: Path, packed: Path, tmp_path: Path, tiny_config: Any
) -> None:
    config = tmp_path / "config.yaml"
    settings = tiny_config(classify__epochs=1, segment__epochs=1, segment__rounds=1).model_dump(mode="json")
    config.write_text(dump_yaml(settings))
    outputs: list[dict[str, bytes]] = []
    weights = []
    for name, data in (("folder", scenes), ("shards", packed)):
        root = tmp_path / name
        common = ("-c", config, "--data", data)
        assert wsss("train-cls", *common, "-o", root / "cls").status == 0
        assert wsss("train-seg", *common, "--init", root / "cls", "-o", root / "seg").status == 0
        assert wsss("make-pseudo", root / "seg", "--data", data, "--split", "train", "-o", root / "pseudo").status == 0
        assert wsss("predict", root / "seg", data, "--split", "val", "-o", root / "masks").status == 0
        done = wsss("evaluate", root / "masks", "--data", data, "--split", "val", "--json")
        found = {path.name: path.read_bytes() for path in (root / "masks" / "labels").iterdir()}
        found |= {f"p{path.name}": path.read_bytes() for path in (root / "pseudo" / "labels").iterdir()}
        outputs.append(found | {"mIoU": str(json.loads(done.out)["mean_iou"]).encode()})
        weights.append([read_checkpoint(root / run / "last.pt")["network"] for run in ("cls", "seg")])
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 8 + 24 + 1
    for one, other in zip(*weights, strict=True):
        assert one.keys() == other.keys()
        assert all((one[key] == other[key]).all() for key in one)


def test_a_folder_that_lost_its_small_files_still_trains(wsss: Program, packed: Path, tmp_path: Path) -> None:
    """No image is extracted: a read-only folder with the shards alone is enough."""
    alone = tmp_path / "alone"
    shutil.copytree(packed, alone)
    alone.chmod(0o555)
    try:
        assert wsss("data", "check", alone).status == 0
        assert {path.name for path in alone.iterdir()} == {path.name for path in packed.iterdir()}
    finally:
        alone.chmod(0o755)
