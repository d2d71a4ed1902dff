"""Label maps as a guide of attention (``train-cls --guide``): whether they fit, and as shares of a patch.

Shape suffixes: B images, K classes, C = K + 1 with the background first, H x W pixels, h x w patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import Config
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import TaggedSet
from wsss.errors import DataError, UsageError
from wsss.reporting import Reporter
from wsss.training.given_labels import check_pixels, edited_labels, find_labels, remark_on_changes


def check_guide_is_used(config: Config, guide: Path | None) -> None:
    """Refuse label maps that no edit of attention reads, and an edit that lacks them.

    Raises:
        UsageError: one is there without the other.
    """
    reads = any(edit.name == "object-aware" and edit.guide == "labels" for edit in config.model.attention)
    if guide is not None and not reads:
        raise UsageError("--guide: no edit of attention reads label maps", "--attention object-aware --guide LABELS")
    if guide is None and reads:
        raise UsageError("model.attention: object-aware with guide: labels lacks its label maps", "--guide LABELS")


def find_guide(folder: Path, train: TaggedSet, reporter: Reporter) -> Path:
    """Where the label maps of a folder lie; what is odd in them is said.

    Raises:
        DataError: they do not fit the images.
    """
    labels = find_labels(folder, train).absolute()
    remark_on_changes(labels, train, reporter)
    check_pixels(labels, train, reporter, edited_labels(labels, train, reporter))
    return labels


def guide_of_task(task: Mapping[str, Any], run: Path) -> Path | None:
    """The guide that a run began with.

    Raises:
        DataError: it has gone.
    """
    guide = None if task.get("guide") is None else Path(task["guide"])
    if guide is not None and not guide.is_dir():
        raise DataError(f"{guide}: no such folder of label maps; {run} began with it", "put it back where it was")
    return guide


def label_shares(label_BHW: Tensor, num_classes: int, patch: tuple[int, int]) -> Tensor:
    """(B, C, h, w) float32: which share of a patch has each label. Ignored pixels count for none.

    Args:
        label_BHW: uint8 class indices; beyond the last row and column, whole patches are filled with ignored pixels.
        num_classes: K.
        patch: (rows, columns) of a patch, pixels.
    """
    rows, columns = patch
    label_BHW = F.pad(label_BHW, (0, -label_BHW.shape[2] % columns, 0, -label_BHW.shape[1] % rows), value=IGNORE_INDEX)
    shares = [F.avg_pool2d((label_BHW == index).float()[:, None], patch) for index in range(num_classes + 1)]
    return torch.cat(shares, dim=1)
