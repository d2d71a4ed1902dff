"""Masks of people: they take the place of every pseudo label, are checked at the door and stand in the supervision."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.config import AugmentSection
from wsss.data.augment import TrainingImages
from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, read_mask, write_mask
from wsss.data.records import TaggedSet
from wsss.data.truth import read_truth
from wsss.errors import DataError, Interrupted
from wsss.inference.labelling import make_pseudo_labels
from wsss.models.checkpoint import load_network
from wsss.reporting import Silent
from wsss.training import segment
from wsss.training.corrected import Corrected, find_corrected
from wsss.training.segment import SegmentStep
from wsss.training.start import resume_segmenter, train_segmenter


class Saying(Silent):
    """A reporter that keeps the remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def train(scenes: Path) -> TaggedSet:
    return open_data(scenes, split="train")


@pytest.fixture
def drawn(tmp_path: Path, train: TaggedSet) -> Path:
    """True masks of the first three images, as a person would draw them."""
    for record in train.records[:3]:
        write_mask(tmp_path / "drawn" / f"{record.name}.png", read_truth(train, record))
    return tmp_path / "drawn"


@pytest.mark.parametrize("given", [True, False])
def test_a_mask_takes_the_place_of_the_pseudo_label(
    given: bool, small_network: Callable[..., Any], tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images, the second with a mask: labels given or made in the step, the loss sees the mask of the second."""
    seen = []

    def loss(scores_BCHW: Any, label_BHW: Any, counts: Any = None) -> Any:
        seen.append(label_BHW.clone())
        return scores_BCHW.sum() * 0

    monkeypatch.setattr(segment, "balanced_cross_entropy", loss)
    config = tiny_config(segment__maps_share=0.0, segment__weight_energy=0.0)
    step = SegmentStep(small_network(), config, 4, labels_given=given, started=True)
    drawn_BHW = torch.full((2, 32, 32), 2, dtype=torch.uint8)
    batch = {
        "image": torch.rand(2, 3, 32, 32),
        "present": torch.tensor([[True, False], [True, False]]),
        "corrected": drawn_BHW,
        "is_corrected": torch.tensor([False, True]),
    }
    if given:
        batch["label"] = torch.full((2, 32, 32), 1, dtype=torch.uint8)
    step.forward(batch, 3)
    (label_BHW,) = seen
    assert (label_BHW[1] == 2).all()
    assert not (label_BHW[0] == 2).any()


def test_samples_bring_the_mask_of_their_image(train: TaggedSet, drawn: Path) -> None:
    names = [record.name for record in train.records[:3]]
    images = TrainingImages(train, AugmentSection(size=24, min_area=1.0), seed=0, corrected=(drawn, names))
    first, fourth = images[(0, 0)], images[(0, 3)]
    assert (bool(first["is_corrected"]), bool(fourth["is_corrected"])) == (True, False)
    assert first["corrected"].shape == (24, 24)
    assert {*first["corrected"].unique().tolist()} <= {*np.unique(read_truth(train, train.records[0])).tolist()}
    assert (fourth["corrected"] == IGNORE_INDEX).all()


def test_in_rounds_and_in_the_supervision(tmp_path: Path, tiny_config: Any, drawn: Path) -> None:
    before = {path.name: path.read_bytes() for path in drawn.rglob("*.png")}
    reporter = Saying()
    config = tiny_config(segment__rounds=2, segment__epochs=1, segment__cls_share=0.0)
    train_segmenter(config, tmp_path / "run", reporter, corrected=drawn)
    assert sum(text.startswith("3 images of 24 learn from people's masks in") for text in reporter.said) == 2
    for run in (tmp_path / "run", tmp_path / "run" / "teacher"):
        assert load_network(run)[0].supervision == ("tags", "people's masks of 3 of 24 images")
    assert {path.name: path.read_bytes() for path in drawn.rglob("*.png")} == before
    train_segmenter(config, tmp_path / "without", Saying())
    pairs = zip(*(load_network(tmp_path / name)[0].state_dict().values() for name in ("run", "without")), strict=True)
    assert any(not torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_stopped_run_resumes_with_them(
    tmp_path: Path, tiny_config: Any, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(segment__epochs=1, segment__cls_share=0.0)
    train_segmenter(config, tmp_path / "whole", Saying(), corrected=drawn)
    forward = SegmentStep.forward

    def stopping(self: SegmentStep, batch: Any, step: int) -> Any:
        if step == 1:
            raise Interrupted("stopped", "")
        return forward(self, batch, step)

    monkeypatch.setattr(SegmentStep, "forward", stopping)
    with pytest.raises(Interrupted):
        train_segmenter(config, tmp_path / "run", Saying(), corrected=drawn)
    monkeypatch.setattr(SegmentStep, "forward", forward)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    resume_segmenter(tmp_path / "run", Saying())
    ours, theirs = (load_network(tmp_path / name)[0].state_dict() for name in ("run", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    path = next(drawn.rglob("*.png"))
    write_mask(path, np.zeros_like(read_mask(path)))
    with pytest.raises(DataError, match="the corrected masks have changed"):
        resume_segmenter(tmp_path / "other", Saying())
    shutil.rmtree(drawn)
    with pytest.raises(DataError, match="the run began with its corrected masks"):
        resume_segmenter(tmp_path / "other", Saying())


def test_a_data_folder_of_other_classes_is_refused(tmp_path: Path, train: TaggedSet, drawn: Path) -> None:
    """What comes back from a label tool lies in masks/images and names its classes, in an order of its own."""
    back = tmp_path / "back"
    shutil.copytree(drawn, back / "masks" / "images")
    (back / "classes.txt").write_text("\n".join(train.classes))
    found = find_corrected(back, train, Silent())
    assert (found.folder, len(found.names)) == (back / "masks" / "images", 3)
    (back / "classes.txt").write_text("\n".join(reversed(train.classes)))
    for folder in (back, back / "masks"):
        with pytest.raises(DataError, match="its masks have the classes") as caught:
            find_corrected(folder, train, Silent())
        assert f"--classes {','.join(train.classes)}" in caught.value.fix


def test_what_does_not_fit_is_refused(tmp_path: Path, train: TaggedSet, drawn: Path) -> None:
    with pytest.raises(DataError, match="no such folder of corrected masks"):
        find_corrected(tmp_path / "gone", train, Silent())
    reporter = Saying()
    write_mask(drawn / "stranger.png", np.zeros((4, 4), np.uint8))
    assert len(find_corrected(drawn, train, reporter).names) == 3
    assert reporter.said[-1] == "1 mask there of no image of the split (stranger): not used"
    path = drawn / f"{train.records[0].name}.png"
    whole_HW = read_mask(path)
    write_mask(path, whole_HW[:-1])
    with pytest.raises(DataError, match=r"rows x columns\), its image"):
        find_corrected(drawn, train, Silent())
    write_mask(path, np.full_like(whole_HW, 3))
    with pytest.raises(DataError, match="holds class index 3; there are 2 classes"):
        find_corrected(drawn, train, Silent())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no corrected mask of an image of split 'train'"):
        find_corrected(tmp_path / "empty", train, Silent())


def test_of_our_own_labels_those_count_that_were_changed(
    tmp_path: Path, train: TaggedSet, small_network: Callable[..., Any], tiny_config: Any
) -> None:
    out = tmp_path / "labels"
    device = torch.device("cpu")
    make_pseudo_labels(small_network(), train, out, tiny_config(), Silent(), device=device, checkpoint_sha256="0")
    with pytest.raises(DataError, match="holds no corrected mask"):
        find_corrected(out, train, Silent())
    name = train.records[5].name
    write_mask(out / "labels" / f"{name}.png", read_truth(train, train.records[5]))
    assert find_corrected(out, train, Silent()) == Corrected(out / "labels", (name,))
