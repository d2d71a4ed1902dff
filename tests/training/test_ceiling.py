"""The ceiling: the same network on true masks, in as many steps; its supervision says so, and it resumes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.data.dataset import open_data
from wsss.data.masks import read_mask
from wsss.errors import DataError, Interrupted
from wsss.models.checkpoint import load_network, read_checkpoint
from wsss.reporting import Silent
from wsss.training.ceiling import score_both, settings_of
from wsss.training.segment import SegmentStep
from wsss.training.start import resume_segmenter, train_segmenter


class Saying(Silent):
    """A reporter that keeps the remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_it_learns_the_masks_in_the_steps_of_all_rounds(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    run = tmp_path / "ceiling"
    network = train_segmenter(tiny_config(segment__epochs=1, segment__rounds=2), run, Silent(), true_masks=True)
    tagged = open_data(scenes, split="train")
    for record in tagged.records:
        np.testing.assert_array_equal(read_mask(run / "labels" / "labels" / f"{record.name}.png"), tagged.truth(record))
    assert read_checkpoint(run / "last.pt")["training"]["step"] == 2 * (24 // 8)
    assert network.supervision == ("tags", "true masks")
    assert load_network(run)[1].segment.rounds == 1


def test_a_stopped_ceiling_resumes_to_the_same_weights(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(segment__epochs=2, segment__rounds=1)
    whole = train_segmenter(config, tmp_path / "whole", Silent(), true_masks=True).state_dict()
    forward, steps = SegmentStep.forward, []

    def stopping(step: SegmentStep, *arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(step, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SegmentStep, "forward", stopping)
        with pytest.raises(Interrupted):
            train_segmenter(config, tmp_path / "run", Silent(), true_masks=True)
    found = resume_segmenter(tmp_path / "run", Silent()).state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_images_without_a_mask_are_left_out_and_said(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    names = [record.name for record in open_data(data, split="train").records]
    for name in names[:5]:
        (data / "masks" / f"{name}.png").unlink()
    reporter = Saying()
    train_segmenter(tiny_config(data__root=data, segment__epochs=1), tmp_path / "run", reporter, true_masks=True)
    assert "5 images of 24 without a mask left out" in reporter.said
    assert len([*(tmp_path / "run" / "labels" / "labels").iterdir()]) == 19
    resume_segmenter(tmp_path / "run", Silent())
    shutil.rmtree(data / "masks")
    with pytest.raises(DataError, match="no image of split 'train' has a mask"):
        train_segmenter(tiny_config(data__root=data), tmp_path / "other", Silent(), true_masks=True)


def test_the_ratio_of_a_run_to_its_ceiling(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    config = tiny_config(segment__epochs=1)
    train_segmenter(config, tmp_path / "tags", Silent())
    other = tiny_config(segment__epochs=7, run__seed=3, data__train_split="other", data__root=tmp_path)
    taken, init = settings_of(tmp_path / "tags", other, ["run.seed"], None)
    assert (taken.segment.epochs, taken.run.seed, init) == (1, 3, None)
    assert taken.data == config.anchored().data
    moved, _ = settings_of(tmp_path / "tags", other, ["data.root"], None)
    assert (moved.data.root, moved.data.train_split, moved.run.seed) == (tmp_path, config.data.train_split, 0)
    network = train_segmenter(taken, tmp_path / "masks", Silent(), true_masks=True)
    reporter = Saying()
    found = score_both(network, tmp_path / "masks", tmp_path / "tags", reporter)
    assert found["split"] == "val"
    assert found["ratio"] == pytest.approx(found["mean_iou"] / found["ceiling"])
    assert reporter.said[-1].startswith(f"val: mIoU {100 * found['ceiling']:.1f} from true masks")
    alone = score_both(network, tmp_path / "masks", None, Silent())
    assert alone == {"run": str(tmp_path / "masks"), "split": "val", "ceiling": found["ceiling"]}
