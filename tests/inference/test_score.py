"""Scoring a network on a split: masks that do not fit are named, and are no bugs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.data.dataset import open_data
from wsss.data.masks import write_mask
from wsss.errors import DataError
from wsss.inference.score import score_split
from wsss.models.network import Network

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mask_HW", "problem"),
    [
        (np.zeros((5, 6), np.uint8), r"is 5 x 6 \(rows x columns\), its image"),
        (np.full((48, 64), 9, np.uint8), r"holds class index 9, expected 0\.\.2 \(bee, ladybird\) or 255"),
    ],
)
def test_a_mask_that_does_not_fit(
    tmp_path: Path,
    scenes: Path,
    small_network: Callable[..., Network],
    tiny_config: Any,
    mask_HW: np.ndarray[Any, Any],
    problem: str,
) -> None:
    """An epoch may have been trained by then."""
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    tagged = open_data(root, split="val")
    network, config = small_network(), tiny_config()
    assert score_split(network, tagged, config, CPU).counts.sum() > 0
    path = tagged.mask_path(tagged.records[2])
    assert path is not None
    write_mask(path, mask_HW)
    with pytest.raises(DataError, match=problem) as caught:
        score_split(network, tagged, config, CPU)
    assert str(path) in caught.value.problem
