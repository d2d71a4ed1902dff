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
from wsss.training.head import LAYER_DECAY, Mode, freeze_below, steps_after_head
from wsss.training.losses import classification_loss
from wsss.training.step import Batch, TrainingStep
from wsss.training.validation import BetweenBatches, Validation


class ClassifyStep(TrainingStep):
    """A step of classification: the soft margin loss of the class logits against the tags.

    Args:
        network: is trained; what ``mode`` does not train is frozen.
        config: the settings.
        whole: steps of all epochs, of which ``mode`` may take fewer.
        each: steps of an epoch.
        mode: "head", "top" or "all", see ``wsss.training.head``.
    """

    def __init__(self, network: Network, config: Config, whole: int, each: int = 1, mode: Mode = "all") -> None:
        freeze_below(network, mode)
        super().__init__(network, config.classify, steps_after_head(whole, each, mode))
        self.layer_decay = LAYER_DECAY if mode == "top" else 1.0

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The classification loss."""
        logits_BK = self.network.classify(batch["image"])
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
