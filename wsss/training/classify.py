"""`wsss train-cls`: multi-label classification from tags alone.

Shape suffixes: B, N images, K classes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from wsss.config import Config
from wsss.data.records import TaggedSet
from wsss.evaluation.tagging import tag_f1, tag_map
from wsss.inference.score import tag_scores
from wsss.models.network import Network
from wsss.training.losses import classification_loss
from wsss.training.step import Batch, TrainingStep
from wsss.training.validation import BetweenBatches, Validation


class ClassifyStep(TrainingStep):
    """A step of classification: the soft margin loss of the class logits against the tags.

    Args:
        network: is trained.
        config: the settings.
        total: steps of the whole training.
        readout_alone: whether the backbone keeps its weights. Where every class is in every image, the loss falls
            whatever the tokens show: five epochs of 121 photos of dogs made the labels of the method "objects" worse
            by 40 points of mIoU (LOG.md).
    """

    def __init__(self, network: Network, config: Config, total: int, *, readout_alone: bool = False) -> None:
        super().__init__(network, config.classify, total)
        self.readout_alone = readout_alone

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The classification loss."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.readout_alone):
            features = self.network.features(batch["image"])
        logits_BK = self.network.readout(features)
        return {"classification": classification_loss(logits_BK, batch["present"], batch.get("known"))}


def tag_validation(split: TaggedSet | None, config: Config, device: torch.device) -> Validation | None:
    """Validation by tag mAP and F1, which needs no mask; None without a validation split."""
    if split is None:
        return None
    return Validation(split.split, "tag_map", partial(_tag_figures, split=split, config=config, device=device))


def _tag_figures(
    network: Network, between: BetweenBatches, *, split: TaggedSet, config: Config, device: torch.device
) -> dict[str, float]:
    scores_NK, present_NK, known_NK = tag_scores(network, split, config, device, between_batches=between)
    return {
        "tag_map": tag_map(scores_NK, present_NK, known_NK),
        "tag_f1": tag_f1(scores_NK, present_NK, known_NK=known_NK),
    }
