"""The command: what it writes, that it goes on where it was stopped, and that masks decide nothing."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.analysis.analyse import analyse
from wsss.analysis.summary import Analysis, summarise
from wsss.cli.main import run as program
from wsss.config import Config, resolve
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.subsets import evenly
from wsss.errors import DataError, Interrupted, UsageError
from wsss.models.checkpoint import save_checkpoint
from wsss.models.network import Network
from wsss.outputs.figures import held_figures
from wsss.reporting import Silent

CPU = torch.device("cpu")
Made = Callable[..., Analysis]


class Stopping(Silent):
    """Raises a signal when the second image is done."""

    done = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += 1
        if self.done == 2:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Config:
    """One image a batch, on two scenes of each shape."""
    return tiny_config(run__batch_pixels=1, maps__method="attention-gradient")


@pytest.fixture
def network(small_network: Callable[..., Any]) -> Any:
    return small_network(decoder=False)


@pytest.fixture
def tagged(scenes: Path) -> TaggedSet:
    return open_data(scenes, split="val")


@pytest.fixture
def made(network: Network, config: Config) -> Made:
    def make(tagged: TaggedSet, out: Path, reporter: Any = None, **more: Any) -> Analysis:
        given: dict[str, Any] = {"device": CPU, "checkpoint_sha256": "x", "side": 32, "limit": 4, **more}
        return analyse(network, tagged, out, config, reporter or Silent(), **given)

    return make


def test_work_that_was_stopped_ends_with_the_same_figures(made: Made, tagged: TaggedSet, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    made(tagged, whole)
    with pytest.raises(Interrupted, match="after 2 of 4 images"):
        made(tagged, parts, Stopping())
    before = {path: path.stat().st_mtime_ns for path in (parts / "figures").rglob("*.npz")}
    assert len(before) == 2
    assert json.loads((parts / "manifest.json").read_text())["counts"] == {}
    made(tagged, parts)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    for name in ("analysis.json", "layers.yaml", "heads.png"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    damaged = next(iter(before))
    damaged.write_bytes(damaged.read_bytes()[:100])
    made(tagged, parts)
    assert (parts / "analysis.json").read_bytes() == (whole / "analysis.json").read_bytes()


def test_masks_are_an_oracle_and_choose_nothing(made: Made, tagged: TaggedSet, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes, tmp_path / "scenes")
    shutil.rmtree(tmp_path / "scenes" / "masks")
    with_masks = made(tagged, tmp_path / "a")
    without = made(open_data(tmp_path / "scenes", split="val"), tmp_path / "b")
    assert (with_masks.masks, without.masks) == (4, 0)
    assert {head.alignment for head in without.heads} == {None}
    assert {block.oracle_miou for block in without.blocks} == {None}
    assert without.oracle_words() == ""
    assert "oracle" not in (tmp_path / "a" / "layers.yaml").read_text()
    for one, other in zip(with_masks.blocks, without.blocks, strict=True):
        assert one == replace(other, oracle_miou=one.oracle_miou, oracle_threshold=one.oracle_threshold)
        assert one.oracle_miou is not None
    assert (tmp_path / "a" / "layers.yaml").read_bytes() == (tmp_path / "b" / "layers.yaml").read_bytes()


def test_refusals_name_the_remedy(made: Made, tagged: TaggedSet, config: Config, tmp_path: Path) -> None:
    made(tagged, tmp_path / "out", limit=1)
    with pytest.raises(UsageError, match="was made with other settings: side") as raised:
        made(tagged, tmp_path / "out", side=16)
    assert "--overwrite" in raised.value.fix
    assert made(tagged, tmp_path / "out", side=16, limit=1, overwrite=True).facts["side"] == 16
    untagged = replace(tagged, records=[replace(record, tags=()) for record in tagged.records])
    with pytest.raises(DataError, match="no image of split 'val' has a tag"):
        made(untagged, tmp_path / "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match="holds other files"),
        held_figures(tmp_path / "mine", {}, Silent(), overwrite=False, choices={}),
    ):
        pass


def test_images_are_taken_evenly(tagged: TaggedSet) -> None:
    names = [record.name for record in tagged.records]
    assert [record.name for record in evenly(tagged.columns, 3)] == [names[0], names[4], names[7]]
    assert list(evenly(tagged.columns, 0)) == list(evenly(tagged.columns, 99)) == list(tagged.records)


def figures(deletion_RL: list[list[float]]) -> dict[str, Any]:
    """Of an image and two blocks of one head; all but the deletion 0."""
    depth = len(deletion_RL[0]) if deletion_RL else 2
    zeros = dict.fromkeys(("distance", "query_spread", "head_spread", "alignment"), np.zeros((depth, 1), np.float32))
    return {
        **zeros,
        "offsets": np.zeros((depth, 1, 9, 9), np.float32),
        "gate": np.zeros(depth),
        "gate_deviation": np.zeros(depth),
        "gain": np.zeros((len(deletion_RL), depth)),
        "deletion": np.array(deletion_RL).reshape(-1, depth),
    }


def test_the_summary_counts_pairs_of_image_and_class() -> None:
    found = summarise({}, [figures([[1, 3], [2, 2]]), figures([]), figures([[3, 1.8]])], [])
    assert (found.images, found.pairs, found.masks) == (3, 3, 0)
    assert [block.deletion for block in found.blocks] == [pytest.approx(2), pytest.approx(6.8 / 3)]
    assert (found.start_layer, found.alike, found.indifferent) == (1, [1], False)
    assert found.words() == "maps of blocks 1 to 1 have the largest deletion"
    flat = summarise({}, [figures([[2, 2.01]])], [])
    assert flat.words().endswith("but 2 of 2 ranges are within 5% of it: these weights do not care")
    assert summarise({}, [figures([[-1, -2]])], []).words().startswith("no range of blocks")


def test_the_command(
    network: Network,
    config: Config,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "cls"
    run.mkdir()
    save_checkpoint(run / "last.pt", network, config)
    words = ["analyze", run, "--data", scenes, "--split", "val", "--limit", "2", "--json", "--set", "run.workers=0"]
    monkeypatch.setattr("sys.argv", ["wsss", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        program()
    assert left.value.code in (0, None)
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["output"] == str(run / "analysis")
    assert (found["images"], found["facts"]["side"], len(found["heads"])) == (2, 32, 12)
    assert "deletion" in said.err
    assert resolve(["demo", run / "analysis" / "layers.yaml"]).maps.start_layer == found["start_layer"]
    with Image.open(run / "analysis" / "heads.png") as picture:
        assert picture.width > 3 * 110
