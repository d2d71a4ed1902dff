"""The way from class scores to a pseudo label, the same for `make-pseudo` and for end-to-end training.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.labels.completion import Background, BackgroundBand, PowerBackground, complete_labels
from wsss.labels.crf import CrfSettings, crf_labels
from wsss.labels.pamr import pamr
from wsss.maps.scores import normalise_scores


@torch.no_grad()
def refine(images_B3HW: Tensor, scores_BKHW: Tensor, present_BK: Tensor, section: LabelsSection) -> Tensor:
    """Make class scores follow the edges of the image (PAMR) and normalise them again.

    Args:
        images_B3HW: in [0, 1].
        scores_BKHW: class scores at image size.
        present_BK: bool.
        section: iterations (0 leaves the scores as they are) and dilations.
    """
    if section.pamr_iterations == 0:
        return normalise_scores(scores_BKHW, present_BK)
    refined = pamr(
        images_B3HW,
        scores_BKHW,
        present_BK,
        iterations=section.pamr_iterations,
        dilations=section.pamr_dilations,
    )
    return normalise_scores(refined, present_BK)


def working_size(height: int, width: int, section: LabelsSection) -> tuple[int, int]:
    """Size at which scores are refined: the image's, or that of ``refine_side`` squared pixels where it is larger."""
    ratio = min(1.0, section.refine_side / (height * width) ** 0.5)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


@torch.no_grad()
def refine_to_image(image_3HW: Tensor, scores_Khw: Tensor, present_K: Tensor, section: LabelsSection) -> Tensor:
    """Scores on a patch grid brought to image size, refined: (K, H, W) in [0, 1]."""
    height, width = image_3HW.shape[1:]
    size = working_size(height, width, section)
    image_B3HW = image_3HW[None]
    if size != (height, width):
        image_B3HW = F.interpolate(image_B3HW, size=size, mode="bilinear", align_corners=False, antialias=True)
    scores_BKHW = F.interpolate(scores_Khw[None].float(), size=size, mode="bilinear", align_corners=False)
    refined_BKHW = refine(image_B3HW, scores_BKHW, present_K[None], section)
    if size != (height, width):
        refined_BKHW = F.interpolate(refined_BKHW, size=(height, width), mode="bilinear", align_corners=False)
    return refined_BKHW[0]


def background_rule(section: LabelsSection) -> PowerBackground | BackgroundBand:
    """What a pixel must beat to belong to a class."""
    if section.background == "power":
        return PowerBackground(exponent=section.exponent)
    return BackgroundBand(low=section.low, high=section.high)


@torch.no_grad()
def complete(
    scores_KHW: Tensor,
    present_K: Tensor,
    section: LabelsSection,
    *,
    saliency_HW: Tensor | None = None,
    image_3HW: Tensor | None = None,
) -> Tensor:
    """The pseudo label of refined scores.

    Args:
        scores_KHW: class scores in [0, 1].
        present_K: bool, the image-level labels.
        section: the settings.
        saliency_HW: in [0, 1], or None.
        image_3HW: in [0, 1]; with it the dense CRF takes the place of the background rule.

    Returns:
        (H, W) uint8.
    """
    rule: Background = background_rule(section)
    if image_3HW is not None:
        rule = CrfBackground(scores_KHW, present_K, image_3HW, background_rule(section))
    return complete_labels(
        scores_KHW,
        present_K,
        background=rule,
        saliency_HW=saliency_HW,
        saliency_threshold=section.saliency_threshold,
        mining_quantile=section.mining_quantile,
        opening=section.opening,
    )


@dataclass(frozen=True, slots=True)
class CrfBackground:
    """The background rule after a dense CRF over the background and the present classes.

    The power rule gives the CRF its background score. A band gives it one at each end: what is foreground
    against the high one is foreground, what is background against the low one is background, the rest is
    ignored (Ahn, Cho and Kwak 2019, IRNet, section 4).
    """

    scores_KHW: Tensor
    present_K: Tensor
    image_3HW: Tensor
    rule: PowerBackground | BackgroundBand

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """(H, W) uint8."""
        if isinstance(self.rule, PowerBackground):
            return self._against(self.rule.score(best_HW))
        likely_HW = self._against(torch.full_like(best_HW, self.rule.low))
        sure_HW = self._against(torch.full_like(best_HW, self.rule.high))
        doubtful_HW = (sure_HW == 0) & (likely_HW > 0)
        return sure_HW.masked_fill(doubtful_HW, IGNORE_INDEX)

    def _against(self, background_HW: Tensor) -> Tensor:
        image_HW3 = (self.image_3HW.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        scores_CHW = torch.cat([background_HW[None], self.scores_KHW]).float().cpu().numpy()
        present_K = self.present_K.cpu().numpy().astype(np.bool_)
        label_HW = crf_labels(image_HW3, scores_CHW, present_K, settings=CrfSettings())
        return torch.from_numpy(label_HW).to(self.scores_KHW.device)
