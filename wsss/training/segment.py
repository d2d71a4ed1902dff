"""`wsss train-seg`: a segmentation network from label maps on disk or, end to end, by double backward.

End to end (GETAM, arXiv 2112.02841, section 3.4): one forward; per present class a first backward to the recorded
attention makes class maps, which PAMR and completion turn into a pseudo label; the second backward, through the same
graph, trains on it. The weights do not change in between, so one forward serves both.

Shape suffixes: B images, C = K + 1 label channels, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss.attention.object_aware import ObjectAware
from wsss.config import Config, SegmentSection
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import TaggedSet
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.odd_truth import odd_truth
from wsss.inference.score import score_split
from wsss.labels.recipe import label_images
from wsss.maps.generate import forward_with_maps
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings, check_map_settings
from wsss.maps.scores import normalise_scores
from wsss.models.backbone import Features
from wsss.models.network import Network
from wsss.training.dense_energy import dense_energy
from wsss.training.head import LAYER_DECAY, freeze_below
from wsss.training.losses import balanced_cross_entropy, count_sides, saliency_loss
from wsss.training.ranks import ALONE, Ranks
from wsss.training.step import Batch, TrainingStep, tag_loss
from wsss.training.validation import BetweenBatches, Validation

Phase = Literal["classify", "maps", "taught", "given"]
"""What a step learns from: tags alone; pseudo labels of the class maps alone; pseudo labels that class maps and decoder
agree on; label maps of the batch."""

FEW_PHOTOS = 1000
"""Below this number of images "auto" freezes the lower half of the blocks: with 200 that is 1.5 to 4.4 points of mIoU
better (benchmarks/results/few_photos.md); nothing between them and 3,131, where all weights were measured."""


def with_finetune(config: Config, images: int, init: Config | None) -> Config:
    """A config in which ``segment.finetune`` is "top" or "all".

    Args:
        config: the settings.
        images: in the training split.
        init: the config of the run that the training starts from; None where it starts from none.
    """
    if config.segment.finetune != "auto":
        return config
    learnt = init is not None and init.model.weights != "none"
    mode = "top" if learnt and images < FEW_PHOTOS else "all"
    return config.model_copy(update={"segment": config.segment.model_copy(update={"finetune": mode})})


class SegmentStep(TrainingStep):
    """A step of segmentation from tags.

    Args:
        network: with a decoder; the lower half of the blocks is frozen where ``segment.finetune`` is "top".
        config: the settings, ``segment.finetune`` decided (`with_finetune`).
        total: steps of the whole training.
        labels_given: whether batches bring label maps; else they are made in the step.
        started: whether the backbone has learnt the tags already, so that no classification phase is needed.

    Raises:
        UsageError: the map settings do not fit the network (`check_map_settings`).
    """

    def __init__(self, network: Network, config: Config, total: int, *, labels_given: bool, started: bool) -> None:
        freeze_below(network, "top" if config.segment.finetune == "top" else "all")
        super().__init__(network, config.segment, total)
        self.making = {"total": total, "labels_given": labels_given, "started": started}
        self.layer_decay = LAYER_DECAY if config.segment.finetune == "top" else 1.0
        self.config = config
        self.segment: SegmentSection = config.segment
        self.decoder_lr_factor = config.segment.decoder_lr_factor
        self.labels_given = labels_given
        self.cls_share = 0.0 if labels_given or started else config.segment.cls_share
        self.settings = MapSettings.of(config.maps)
        if not labels_given:
            check_map_settings(network, self.settings)

    def phase_at(self, step: int) -> Phase:
        """The phase of a step, from 0. End to end they follow each other as in ``Phase``."""
        if self.labels_given:
            return "given"
        began = round(self.cls_share * self.total)
        if step < began:
            return "classify"
        return "maps" if step - began < self.segment.maps_share * (self.total - began) else "taught"

    def lr_factor(self, step: int) -> float:
        """One decay over the whole run; the phases after "classify" may have another rate."""
        factor = super().lr_factor(step)
        after_classification = self.cls_share > 0 and self.phase_at(step) != "classify"
        return factor * self.segment.lr_seg_factor if after_classification else factor

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Also ``side_counts``, where the label maps are given."""
        given = {"side_counts": count_sides(_learnt(batch["label"], batch))} if self.labels_given else {}
        return super().counts(batch) | given

    def leaves_unused(self, step: int) -> bool:
        """The decoder while the classifier is trained, and edits of attention that need a guide of label maps."""
        idle = any(isinstance(edit, ObjectAware) and not edit.by_colour for edit in self.network.attention)
        return idle or self.phase_at(step) == "classify"

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted loss terms by name.

        Pseudo labels of phase "taught" read the decoder of the moving average where there is one: it errs less than the
        weights of the last step, and confirms its own errors less (Mean Teacher, Tarvainen and Valpola 2017).
        """
        images_B3HW, present_BK = batch["image"], batch["present"]
        phase = self.phase_at(step)
        if phase == "classify":
            return {"classification": tag_loss(self.network.classify(images_B3HW), batch)}
        if phase == "given":
            logits_BK, scores_BCHW = self.network(images_B3HW)
            return self._terms(logits_BK, scores_BCHW, batch["label"], batch)
        features, logits_BK, maps = forward_with_maps(
            self.network, images_B3HW, present_BK, self.settings, taps=True, keep_graph=True
        )
        scores_BCHW = self.network.decode(features, (images_B3HW.shape[2], images_B3HW.shape[3]))
        decoder_BCHW = self._decoder_scores(images_B3HW, scores_BCHW) if phase == "taught" else None
        label_BHW = self.pseudo_labels(features, maps, batch, decoder_BCHW)
        return self._terms(logits_BK, scores_BCHW, label_BHW, batch)

    @torch.no_grad()
    def pseudo_labels(
        self, features: Features, maps: PresentMaps, batch: Batch, decoder_BCHW: Tensor | None = None
    ) -> Tensor:
        """Pseudo labels of a batch.

        Args:
            features: of the pass that was recorded.
            maps: class maps of that pass, before normalisation.
            batch: images, tags and perhaps saliency maps.
            decoder_BCHW: scores (logits) of the decoder; None makes labels from the maps alone.

        Returns:
            (B, H, W) uint8 class indices, IGNORE_INDEX where no class is sure.
        """
        size = (batch["image"].shape[2], batch["image"].shape[3])
        scores = normalise_scores(maps)
        return label_images(
            batch["image"],
            scores.unpack(self.network.to_image(scores.pack(), features.grid, size)),
            size,
            self.config.labels,
            log_probabilities_BChw=decoder_BCHW,
            order="refine-then-agree",
            saliency_BHW=batch.get("saliency"),
        )

    @torch.no_grad()
    def _decoder_scores(self, images_B3HW: Tensor, scores_BCHW: Tensor) -> Tensor:
        """(B, C, H, W): scores of the moving average, or those given where there is no average."""
        if self.average is not None:
            scores_BCHW = self.average.network(images_B3HW)[1]
        return scores_BCHW.float()

    def _terms(self, logits_BK: Tensor, scores_BCHW: Tensor, label_BHW: Tensor, batch: Batch) -> dict[str, Tensor]:
        label_BHW, segment = _learnt(label_BHW, batch), self.segment
        count_2 = batch["side_counts"] if "side_counts" in batch else self.ranks.mean(count_sides(label_BHW))
        terms = {
            "segmentation": balanced_cross_entropy(scores_BCHW, label_BHW, count_2),
            "classification": tag_loss(logits_BK, batch),
        }
        if segment.weight_energy:
            energy = dense_energy(
                batch["image"],
                scores_BCHW.float().softmax(dim=1),
                sigma_rgb=segment.sigma_rgb,
                sigma_xy=segment.sigma_xy,
            )
            terms["energy"] = segment.weight_energy * energy
        if "saliency" in batch:
            terms["saliency"] = saliency_loss(scores_BCHW, batch["saliency"].float() / 255)
        return terms


def _learnt(label_BHW: Tensor, batch: Batch) -> Tensor:
    """Label maps with the masks of people in their place, and without pixels for which a picture has no data."""
    if "corrected" in batch:
        label_BHW = torch.where(batch["is_corrected"][:, None, None], batch["corrected"], label_BHW)
    return label_BHW.masked_fill(batch["valid"] == 0, IGNORE_INDEX) if "valid" in batch else label_BHW


def mask_validation(
    split: TaggedSet | None,
    config: Config,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
    ranks: Ranks = ALONE,
) -> Validation | None:
    """Validation by mIoU and pixel accuracy, one scale, no flip; None without a validation split that has masks.

    What tags and masks say differently is said once, since the figures may mean nothing.
    """
    if split is None or not split.has_masks():
        return None
    said: set[str] = set()

    def figures(network: Network, between: BetweenBatches) -> dict[str, float]:
        score = partial(score_split, network, split, config, device, between_batches=between, share=ranks.share)
        matrix = ConfusionMatrix(len(split.classes) + 1)
        matrix.counts = np.sum([part.counts for part in ranks.gather(ranks.agree(score))], axis=0)
        for remark in set(odd_truth(matrix, split)) - said:
            say(f"split {split.split}: {remark}")
            said.add(remark)
        return {"mean_iou": matrix.mean_iou(), "pixel_accuracy": matrix.pixel_accuracy()}

    return Validation(split.split, "mean_iou", figures)
