"""Large pictures in windows: the same answer as whole, without seams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wsss.config import Config
from wsss.data.dataset import open_unlabelled
from wsss.data.masks import read_mask
from wsss.inference.predicting import predict_masks
from wsss.inference.segmenter import Segmenter
from wsss.models.network import Network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent

CPU = torch.device("cpu")


def config_of(tile: int, scale: int = 64) -> Config:
    return Config.model_validate({"predict": {"tile": tile, "scales": (scale,)}})


def red_or_not(images_by_scale: Sequence[Tensor]) -> Tensor:
    """Log-probabilities whose answer is known: a pixel is class 1 where red exceeds green, on the grid of the pixels."""
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
