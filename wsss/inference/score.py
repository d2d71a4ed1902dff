"""Score a network on a split: its segmentation and its classification. Validation and the demo use it.

Shape suffixes: B, N images, C = K + 1 label channels, K classes, h x w grid of the decoder, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wsss.config import Config, Optimisation
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.data.truth import read_truth, truth_place
from wsss.errors import DataError
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.settings import batch_pixels, validation_side
from wsss.labels.bands import labels_from_grid
from wsss.machine import autocast, num_workers
from wsss.models.averaged import log_label_probabilities
from wsss.models.network import Network

EVERY = slice(None)
"""All batches of a split."""


def score_split(
    network: Network,
    tagged: TaggedSet,
    config: Config,
    device: torch.device,
    *,
    between_batches: Callable[[], None] = lambda: None,
    share: slice = EVERY,
) -> ConfusionMatrix:
    """Confusion matrix of a network on a split with masks: one scale (`validation_side`), no flip, no CRF.

    ``between_batches`` is called before each batch and may raise to end the work; ``share`` are the batches to score.

    Raises:
        DataError: a mask cannot be read, has another size than its image, or holds unknown class indices.
    """
    records = [record for record in tagged.records if tagged.has_truth(record)]
    matrix = ConfusionMatrix(len(tagged.classes) + 1)
    for batch in _batches(network, records, config, config.segment, device, share):
        between_batches()
        with autocast(config.run, device):
            grid_BChw = log_label_probabilities(network, batch.at_scales(device))
        for record, size, grid_Chw in zip(batch.records, batch.sizes, grid_BChw, strict=True):
            truth_HW = read_truth(tagged, record)
            if truth_HW.shape != size:
                raise DataError(
                    f"{truth_place(tagged, record)} is {truth_HW.shape[0]} x {truth_HW.shape[1]} (rows x columns), its"
                    f" image {size[0]} x {size[1]}",
                    f"wsss data check {tagged.root} --split {tagged.split}  # names every mask that does not fit",
                )
            matrix.update(labels_from_grid(grid_Chw, size).cpu().numpy(), truth_HW)
    return matrix


def tag_scores(
    network: Network,
    tagged: TaggedSet,
    config: Config,
    device: torch.device,
    *,
    between_batches: Callable[[], None] = lambda: None,
    share: slice = EVERY,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Class probabilities, tags and which tags are known of all images, (N, K) each, in the same order, at one scale.

    ``between_batches`` is called before each batch and may raise to end the work; ``share`` are the batches to score.
    """
    scores = [torch.empty(0, len(tagged.classes))]
    present: list[NDArray[np.bool_]] = []
    known: list[NDArray[np.bool_]] = []
    for batch in _batches(network, tagged.records, config, config.classify, device, share):
        between_batches()
        with torch.inference_mode(), autocast(config.run, device):
            logits_BK = network.classify(batch.at_scales(device)[0])
        scores.append(logits_BK.float().sigmoid().cpu())
        present += [tagged.present(record) for record in batch.records]
        known += [tagged.known(record) for record in batch.records]
    tags_NK, known_NK = (np.array(rows, np.bool_).reshape(-1, len(tagged.classes)) for rows in (present, known))
    return torch.cat(scores).numpy(), tags_NK, known_NK


def _batches(
    network: Network,
    records: Sequence[Record],
    config: Config,
    section: Optimisation,
    device: torch.device,
    share: slice,
) -> Iterator[ScaledBatch]:
    """Batches at the one scale of a validation (`validation_side`)."""
    scales = (validation_side(config, section),)
    images = ScaledImages(records, scales, network.backbone.stride, batch_pixels(config.run, device))
    images.batches = images.batches[share]
    return load_batches(images, num_workers(config.run), device)
