"""`wsss train-cls`: a transformer learns which classes an image holds. Tags are all it sees.

Shape suffixes: B, N images, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsss.config import ClassifySection, Config
from wsss.data.records import TaggedSet
from wsss.evaluation.tagging import tag_f1, tag_map
from wsss.inference.score import tag_scores
from wsss.models.network import Network
from wsss.training.loop import Batch
from wsss.training.losses import classification_loss
from wsss.training.optimiser import schedule


class ClassifyTask:
    """Multi-label classification with the soft margin loss."""

    main_metric = "tag_map"

    def __init__(self, config: Config, validation: TaggedSet | None, device: torch.device) -> None:
        self.config = config
        self.section: ClassifySection = config.classify
        self.validation = validation
        self.device = device

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        """One group, one rate."""
        return [{"params": list(network.parameters()), "lr": self.section.lr}]

    def lr_factor(self, step: int, total: int) -> float:
        """Warm-up and decay over the whole run."""
        return schedule(self.section, step, total)

    def losses(
        self, network: Network, batch: Batch, step: int, total: int, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """The classification loss."""
        return {"classification": classification_loss(network.classify(batch["image"]), batch["present"])}

    def validate(self, network: Network) -> dict[str, float]:
        """Tag mAP and F1 on the validation split; needs no mask."""
        if self.validation is None:
            return {}
        scores_NK, present_NK = tag_scores(network, self.validation, self.config, self.device)
        return {"tag_map": tag_map(scores_NK, present_NK), "tag_f1": tag_f1(scores_NK, present_NK)}
