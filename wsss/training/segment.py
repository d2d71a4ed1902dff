"""`wsss train-seg`: a segmentation network from pseudo labels on disk or, end to end, by double backward.

End to end (GETAM, arXiv 2112.02841, section 3.4): one forward; per present class a first backward to the recorded
attention makes class maps, which PAMR and completion turn into a pseudo label; the second backward, through the same
graph, trains on it. The weights do not change in between, so nothing is computed twice.

Shape suffixes: B images, C = K + 1 label channels, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsss.config import Config, SegmentSection
from wsss.data.records import TaggedSet
from wsss.inference.score import score_split
from wsss.labels.recipe import label_images
from wsss.maps.generate import forward_with_maps
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings
from wsss.maps.scores import normalise_scores
from wsss.models.backbone import Features
from wsss.models.network import Network
from wsss.training.dense_energy import dense_energy
from wsss.training.loop import Batch
from wsss.training.losses import balanced_cross_entropy, classification_loss, saliency_loss
from wsss.training.optimiser import schedule


class SegmentTask:
    """Segmentation from tags.

    Args:
        config: the settings.
        validation: scored with its masks, where it has any.
        device: where it computes.
        from_disk: whether batches bring label maps; else they are made in the step.
        started: whether the backbone has learnt the tags already, so that no classification phase is needed.
    """

    main_metric = "mean_iou"

    def __init__(
        self,
        config: Config,
        validation: TaggedSet | None,
        device: torch.device,
        *,
        from_disk: bool,
        started: bool,
    ) -> None:
        self.config = config
        self.section: SegmentSection = config.segment
        self.validation = validation if validation is not None and validation.has_masks() else None
        self.device = device
        self.from_disk = from_disk
        self.cls_share = 0.0 if from_disk or started else config.segment.cls_share
        self.settings = MapSettings.of(config.maps)

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        """The fresh decoder learns faster than the backbone."""
        assert network.decoder is not None
        decoder = list(network.decoder.parameters())
        known = {id(parameter) for parameter in decoder}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in known]
        section = self.section
        return [
            {"params": rest, "lr": section.lr},
            {"params": decoder, "lr": section.lr * section.decoder_lr_factor},
        ]

    def lr_factor(self, step: int, total: int) -> float:
        """One decay over the whole run; the segmentation phase may run at another rate."""
        factor = schedule(self.section, step, total)
        return factor if self._classifies(step, total) or not self.cls_share else factor * self.section.lr_seg_factor

    def losses(
        self, network: Network, batch: Batch, step: int, total: int, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Weighted loss terms of one step.

        The decoder that pseudo labels hear is the teacher's where there is one: an average of many steps errs less than
        the last of them and confirms its errors less (Mean Teacher, Tarvainen and Valpola 2017).
        """
        if self._classifies(step, total):
            return {"classification": classification_loss(network.classify(batch["image"]), batch["present"])}
        if self.from_disk:
            logits_BK, scores_BCHW = network(batch["image"])
            return self._terms(logits_BK, scores_BCHW, batch["label"], batch)
        images_B3HW, present_BK = batch["image"], batch["present"]
        features, logits_BK, maps = forward_with_maps(
            network, images_B3HW, present_BK, self.settings, taps=True, keep_graph=True
        )
        scores_BCHW = network.decode(features, (images_B3HW.shape[2], images_B3HW.shape[3]))
        opinion_BCHW = None
        if self._hears_decoder(step, total):
            with torch.no_grad():
                heard_BCHW = scores_BCHW if teacher is None else teacher(images_B3HW)[1]
                opinion_BCHW = heard_BCHW.float()
        label_BHW = self.pseudo_labels(network, features, maps, batch, opinion_BCHW)
        return self._terms(logits_BK, scores_BCHW, label_BHW, batch)

    @torch.no_grad()
    def pseudo_labels(
        self,
        network: Network,
        features: Features,
        maps: PresentMaps,
        batch: Batch,
        opinion_BCHW: Tensor | None = None,
    ) -> Tensor:
        """Pseudo labels (B, H, W) uint8 of a batch, from its class maps and, where given, the decoder's logits."""
        size = (batch["image"].shape[2], batch["image"].shape[3])
        scores = normalise_scores(maps)
        return label_images(
            batch["image"],
            scores.unpack(network.to_image(scores.pack(), features.grid, size)),
            size,
            self.config.labels,
            log_probabilities_BChw=opinion_BCHW,
            order="refine-then-agree",
            saliency_BHW=batch.get("saliency"),
        )

    def validate(self, network: Network) -> dict[str, float]:
        """MIoU and pixel accuracy on the validation split, one scale, no flip."""
        if self.validation is None:
            return {}
        matrix = score_split(network, self.validation, self.config, self.device)
        return {"mean_iou": matrix.mean_iou(), "pixel_accuracy": matrix.pixel_accuracy()}

    def _classifies(self, step: int, total: int) -> bool:
        return step < round(self.cls_share * total)

    def _hears_decoder(self, step: int, total: int) -> bool:
        began = round(self.cls_share * total)
        return step - began >= self.section.maps_share * (total - began)

    def _terms(self, logits_BK: Tensor, scores_BCHW: Tensor, label_BHW: Tensor, batch: Batch) -> dict[str, Tensor]:
        section = self.section
        terms = {
            "segmentation": balanced_cross_entropy(scores_BCHW, label_BHW),
            "classification": classification_loss(logits_BK, batch["present"]),
        }
        if section.weight_energy:
            energy = dense_energy(
                batch["image"],
                scores_BCHW.float().softmax(dim=1),
                sigma_rgb=section.sigma_rgb,
                sigma_xy=section.sigma_xy,
            )
            terms["energy"] = section.weight_energy * energy
        if "saliency" in batch:
            terms["saliency"] = saliency_loss(scores_BCHW, batch["saliency"].float() / 255)
        return terms
