"""`wsss train-cls`: multi-label classification from tags alone.

Shape suffixes: B, N images, K classes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from wsss.attention.interventions import Uniform
from wsss.config import Config
from wsss.data.augment import mix
from wsss.data.records import TaggedSet
from wsss.evaluation.tagging import tag_f1, tag_map
from wsss.inference.score import tag_scores
from wsss.maps.generate import frozen
from wsss.models.network import Network
from wsss.training.guide import label_shares
from wsss.training.head import LAYER_DECAY, Mode, freeze_below, steps_after_head
from wsss.training.ranks import ALONE, Ranks
from wsss.training.step import Batch, TrainingStep, tag_loss
from wsss.training.validation import BetweenBatches, Validation

HALF_SCALE = 1024.0
"""Factor of a loss whose gradient counts by its sign alone: in half precision small gradients would become 0."""


class ClassifyStep(TrainingStep):
    """A step of classification: the soft margin loss of the class logits against the tags.

    With ``classify.adversarial`` the first half of the batch is changed against its tags (FGSM, as in adversarial
    training: Croce and Hein, arXiv 2209.06953). With ``classify.weight_gain`` the tags are to follow also from what the
    explaining rows of attention add to the logits (the attention gain of DREAL, arXiv 2007.06156).

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
        self.making = {"whole": whole, "each": each, "mode": mode}
        self.layer_decay = LAYER_DECAY if mode == "top" else 1.0
        self.classify, self.seed = config.classify, config.run.seed

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The classification loss and, where it has a weight, that of the attention gain."""
        network, images_B3HW = self.network, batch["image"]
        guide = None
        if "guide" in batch:
            guide = label_shares(batch["guide"], len(network.classes), network.backbone.stride)
        if self.classify.adversarial:
            images_B3HW = half_attacked(network, batch, guide, self.classify.adversarial / 255)
        logits_BK = network.classify(images_B3HW, guide=guide)
        terms = {"classification": tag_loss(logits_BK, batch)}
        if self.classify.weight_gain:
            edit = even_rows(network, mix(self.seed, step, 2))
            # after the pass above: autocast keeps the weights that it rounds, and those made here would lack gradients
            with torch.no_grad(), network.edited(edit):
                even_BK = network.classify(images_B3HW, guide=guide)
            terms["gain"] = self.classify.weight_gain * tag_loss(logits_BK - even_BK, batch)
        return terms


def even_rows(network: Network, number: int) -> Uniform:
    """The explaining rows made even in one block of the last third, which the number chooses."""
    depth = network.backbone.depth
    first = depth - max(1, depth // 3)
    layer = first + number % (depth - first)
    return Uniform(network.readout.fed, range(layer, layer + 1))


def half_attacked(network: Network, batch: Batch, guide: Tensor | None, largest: float) -> Tensor:
    """(B, 3, H, W): the images of a batch, the first half of them after one step that raises their loss (FGSM).

    Args:
        network: its parameters get no gradient.
        batch: images in [0, 1] and their tags.
        guide: see ``Network.features``.
        largest: change of a pixel, in [0, 1].
    """
    count = len(batch["image"]) // 2
    if not count:
        return batch["image"]
    rows = {name: values[:count] for name, values in batch.items() if name in ("image", "present", "known")}
    with frozen(network), torch.enable_grad():
        images = rows["image"].detach().requires_grad_()
        logits_BK = network.classify(images, guide=None if guide is None else guide[:count])
        (gradient,) = torch.autograd.grad(HALF_SCALE * tag_loss(logits_BK, rows), images)
    attacked = (images.detach() + largest * gradient.sign()).clamp(0, 1)
    return torch.cat([attacked, batch["image"][count:]])


def tag_validation(
    split: TaggedSet | None, config: Config, device: torch.device, ranks: Ranks = ALONE
) -> Validation | None:
    """Validation by tag mAP and F1, which needs no mask; None without a validation split."""
    if split is None:
        return None
    figures = partial(_tag_figures, split=split, config=config, device=device, ranks=ranks)
    return Validation(split.split, "tag_map", figures)


def _tag_figures(
    network: Network, between: BetweenBatches, *, split: TaggedSet, config: Config, device: torch.device, ranks: Ranks
) -> dict[str, float]:
    score = partial(tag_scores, network, split, config, device, between_batches=between, share=ranks.share)
    parts = ranks.gather(ranks.agree(score))
    scores_NK, present_NK, known_NK = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {
        "tag_map": tag_map(scores_NK, present_NK, known_NK),
        "tag_f1": tag_f1(scores_NK, present_NK, known_NK=known_NK),
    }
