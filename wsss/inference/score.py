"""Score a network on a split: its masks and its tags. Validation and the demo use it.

Shape suffixes: B, N images, C = K + 1 label channels, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss.config import Config
from wsss.data.masks import read_mask
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.machine import autocast, num_workers
from wsss.models.averaged import label_probabilities
from wsss.models.network import Network


def score_split(
    network: Network,
    tagged: TaggedSet,
    config: Config,
    device: torch.device,
    *,
    between_batches: Callable[[], None] = lambda: None,
) -> ConfusionMatrix:
    """Confusion matrix of a network on a split with masks: one scale (that of the crops), no flip, no CRF.

    ``between_batches`` is called before each batch and may raise to end the work.
    """
    records = [record for record in tagged.records if tagged.mask_path(record) is not None]
    images = ScaledImages(records, (config.augment.size,), network.backbone.stride, config.segment.batch_size)
    matrix = ConfusionMatrix(len(tagged.classes) + 1)
    for batch in load_batches(images, num_workers(config.run), device):
        between_batches()
        sizes = [(image.shape[0], image.shape[1]) for image in batch.images]
        with autocast(config.run, device):
            probabilities = label_probabilities(network, batch.at_scales(device), sizes)
        for record, probabilities_CHW in zip(batch.records, probabilities, strict=True):
            path = tagged.mask_path(record)
            assert path is not None
            matrix.update(probabilities_CHW.argmax(dim=0).cpu().numpy(), read_mask(path))
    return matrix


def tag_scores(
    network: Network,
    tagged: TaggedSet,
    config: Config,
    device: torch.device,
    *,
    between_batches: Callable[[], None] = lambda: None,
) -> tuple[Any, Any]:
    """Class probabilities and tags of a set, (N, K) each, one scale, in the same order; see ``score_split``."""
    images = ScaledImages(tagged.records, (config.augment.size,), network.backbone.stride, config.classify.batch_size)
    scores: list[Tensor] = []
    present: list[Any] = []
    for batch in load_batches(images, num_workers(config.run), device):
        between_batches()
        with torch.inference_mode(), autocast(config.run, device):
            logits_BK = network.classify(batch.at_scales(device)[0])
        scores.append(logits_BK.float().sigmoid().cpu())
        present += [tagged.present(record) for record in batch.records]
    return torch.cat(scores).numpy(), np.stack(present)
