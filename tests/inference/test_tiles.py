"""Large pictures in windows: the same answer as whole, without seams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wsss.config import Config
from wsss.data.dataset import open_data, open_unlabelled
from wsss.data.images import read_image
from wsss.data.masks import read_mask
from wsss.errors import UsageError
from wsss.inference.labeller import Labeller, Reading
from wsss.inference.labelling import Wanted, make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.inference.segmenter import Segmenter
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores
from wsss.models.network import Network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent

CPU = torch.device("cpu")


def config_of(tile: int, scale: int = 64) -> Config:
    return Config.model_validate({"predict": {"tile": tile, "scales": (scale,)}})


def red_or_not(images_by_scale: Sequence[Tensor]) -> Tensor:
    """Log-probabilities whose answer is known: class 1 where red exceeds green, on the grid of the pixels."""
    images_B3HW = images_by_scale[0]
    logits_B1HW = 20 * (images_B3HW[:, :1] - images_B3HW[:, 1:2])
    zero_B1HW = torch.zeros_like(logits_B1HW)
    return torch.cat([zero_B1HW, logits_B1HW, zero_B1HW - 50], dim=1).log_softmax(dim=1)


def blobs(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    wave = np.sin(x / 23) + np.cos(y / 31)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = (127 + 60 * wave).clip(0, 255)
    image[..., 1] = 127
    return image


def test_windows_give_what_a_known_segmenter_says(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = blobs(230, 310)
    segmenter = Segmenter(small_network(decoder=True), config_of(64), CPU)
    monkeypatch.setattr(Segmenter, "log_probabilities", lambda self, images: red_or_not(images))
    label = segmenter.label_large(image)
    truth = image[..., 0] > image[..., 1]
    assert label.shape == truth.shape
    assert (label != truth).mean() < 0.005


@pytest.mark.parametrize("crf", [False, True])
def test_predict_writes_masks_of_the_size_of_large_pictures(
    small_network: Callable[..., Network], tmp_path: Path, crf: bool
) -> None:
    if crf:
        pytest.importorskip("pydensecrf")
    (tmp_path / "in").mkdir()
    Image.fromarray(blobs(150, 210)).save(tmp_path / "in" / "large.png")
    Image.fromarray(blobs(40, 50)).save(tmp_path / "in" / "small.png")
    config = Config.model_validate({"predict": {"tile": 100, "scales": (64,), "crf": crf}})
    network, records = small_network(decoder=True), open_unlabelled(tmp_path / "in")
    make = lambda out, config: predict_masks(  # noqa: E731
        network, records, tmp_path / out, config, Silent(), device=CPU, checkpoint_sha256="0"
    )
    counts = make("tiles", config)
    assert (counts["made"], counts["skipped"]) == (2, 0)
    assert make("tiles", config)["skipped"] == 2
    assert read_mask(tmp_path / "tiles" / "labels" / "large.png").shape == (150, 210)
    assert read_manifest(tmp_path / "tiles")["tile"] == 100
    make("whole", Config.model_validate({"predict": {"scales": (64,), "crf": crf}}))
    assert "tile" not in read_manifest(tmp_path / "whole")
    small = [tmp_path / out / "labels" / "small.png" for out in ("tiles", "whole")]
    assert small[0].read_bytes() == small[1].read_bytes()


def object_in_one_window(
    evidence: float, small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """The label of a black picture with a red square, where the classifier says ``evidence`` of other windows."""
    image = np.zeros((300, 300, 3), np.uint8)
    image[20:60, 20:60, 0] = 255
    plain = {"maps": {"tile": 100, "scales": (64,)}, "labels": {"decoder": False, "background": "band"}}
    labeller = Labeller(small_network(decoder=False), Config.model_validate(plain), CPU)

    def probability(self: Labeller, images_by_scale: Sequence[Tensor]) -> Tensor:
        seen_B = images_by_scale[0].amax(dim=(1, 2, 3)) > 0.5
        return torch.where(seen_B, 0.9, evidence)[:, None].expand(-1, 2)

    def read(self: Labeller, images_by_scale: Sequence[Tensor], present_BK: Tensor) -> Reading:
        red_BHW = images_by_scale[0][:, 0] + 0.01  # a map that is divided by its maximum is 1 in black windows
        return Reading(normalise_scores(PresentMaps.of(red_BHW[present_BK.nonzero()[:, 0]], present_BK)), None)

    monkeypatch.setattr(Labeller, "evidence", probability)
    monkeypatch.setattr(Labeller, "read", read)
    return labeller.label_large(image, torch.tensor([[False, True]]))


def test_windows_without_the_object_are_background(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = object_in_one_window(0.1, small_network, monkeypatch)
    assert label.shape == (300, 300)
    assert (label[25:55, 25:55] == 2).mean() > 0.95
    assert (label[:110, :110] == 2).sum() < 1.5 * 40 * 40
    assert (label[110:] == 0).all()
    assert (label[:, 110:] == 0).all()


def test_without_the_evidence_of_the_whole_picture_they_would_be_labelled(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = object_in_one_window(0.9, small_network, monkeypatch)
    assert (label[150:] == 2).mean() > 0.9


@pytest.mark.parametrize("decoder", [False, True])
def test_make_pseudo_labels_large_pictures(
    small_network: Callable[..., Network], scenes: Path, tiny_config: Any, tmp_path: Path, decoder: bool
) -> None:
    config, tagged = tiny_config(), open_data(scenes, split="val")
    config = config.model_copy(update={"maps": config.maps.model_copy(update={"tile": 40})})
    tagged = replace(tagged, records=tagged.records[:2])
    network = small_network(decoder=decoder, classes=tagged.classes)
    arguments: Any = {"device": CPU, "checkpoint_sha256": "0"}
    make_pseudo_labels(network, tagged, tmp_path, config, Silent(), wanted=Wanted(overlays=1), **arguments)
    for record in tagged.records:
        label = read_mask(tmp_path / "labels" / f"{record.name}.png")
        assert label.shape == read_image(record.image).shape[:2]
        assert set(np.unique(label)) <= {0, 255, *(tag + 1 for tag in record.tags)}
    assert read_manifest(tmp_path)["tile"] == 40
    with pytest.raises(UsageError, match="--save-scores cannot be used"):
        make_pseudo_labels(network, tagged, tmp_path, config, Silent(), wanted=Wanted(scores=True), **arguments)
