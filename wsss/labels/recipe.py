"""The way from class scores to a pseudo label, the same for `make-pseudo` and for end-to-end training.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.labels.agreement import Confidence, joint_probabilities, with_background
from wsss.labels.completion import Background, BackgroundBand, PowerBackground, complete_labels
from wsss.labels.crf import Crf, CrfSettings, crf_labels, crf_ranks
from wsss.labels.pamr import DILATIONS, pamr
from wsss.maps.scores import normalise_scores

Rule = PowerBackground | BackgroundBand | Confidence
"""What a pixel must beat to belong to a class."""

CRF_SETTINGS = CrfSettings()
REFINE_SIDE = 512
"""Images of a larger area than this squared are refined at that area, to bound time and memory."""


@torch.no_grad()
def refine(images_B3HW: Tensor, scores_BKHW: Tensor, present_BK: Tensor, section: LabelsSection) -> Tensor:
    """Make class scores follow the edges of the image and divide each by its maximum again.

    Args:
        images_B3HW: in [0, 1].
        scores_BKHW: class scores at image size.
        present_BK: bool, on the host.
        section: see `follow_edges`.
    """
    return normalise_scores(follow_edges(images_B3HW, scores_BKHW, present_BK, section), present_BK)


def agree(scores_BKHW: Tensor, present_BK: Tensor, opinion_BCHW: Tensor, section: LabelsSection) -> Tensor:
    """Probabilities (B, C, H, W) that maps and decoder agree on; see `joint_probabilities`."""
    return joint_probabilities(scores_BKHW, present_BK, opinion_BCHW, background_rule(section), section.softness)


def follow_edges(images_B3HW: Tensor, maps_BRHW: Tensor, present_BR: Tensor, section: LabelsSection) -> Tensor:
    """PAMR as the settings want it; absent maps become 0.

    Args:
        images_B3HW: in [0, 1].
        maps_BRHW: at image size.
        present_BR: bool, on the host.
        section: iterations (0 leaves the maps as they are) and the stride:
            of 2 or more, images and maps are made so much smaller first and the refined maps large again.
    """
    if section.pamr_iterations == 0:
        return maps_BRHW
    size, stride = (images_B3HW.shape[2], images_B3HW.shape[3]), section.pamr_stride
    coarse = (max(1, round(size[0] / stride)), max(1, round(size[1] / stride)))
    refined_BRHW = pamr(
        _resize(images_B3HW, coarse),
        _resize(maps_BRHW, coarse),
        present_BR,
        iterations=section.pamr_iterations,
        dilations=strided(DILATIONS, stride),
    )
    return _resize(refined_BRHW, size)


def strided(dilations: Sequence[int], stride: int) -> tuple[int, ...]:
    """Distances on an image made ``stride`` times smaller that reach as far over the scene; at least 1 each.

    Rings that fall together stay as many as they were, so that near and far neighbours keep their shares and a score
    flows as far in an iteration. The default distances have a mean square of 134 at stride 1, in pixels of the image,
    135 at 2 and 139 at 4; taken once each they would have 161 and 200, left as they are 537 and 2147.
    """
    return tuple(max(1, round(dilation / stride)) for dilation in dilations)


def _resize(maps_BRHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, without aliasing."""
    height, width = maps_BRHW.shape[2:]
    if size == (height, width):
        return maps_BRHW
    smaller = size[0] * size[1] < height * width
    return F.interpolate(maps_BRHW, size=size, mode="bilinear", align_corners=False, antialias=smaller)


def working_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Size at which scores are refined: the image's, or that of ``side`` squared pixels where it is larger."""
    ratio = min(1.0, side / (height * width) ** 0.5)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


@torch.no_grad()
def refine_to_image(
    images_B3HW: Tensor,
    scores_BKhw: Tensor,
    present_BK: Tensor,
    section: LabelsSection,
    opinion_BCHW: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scores on a patch grid brought to image size and made to follow its edges.

    With the decoder's opinion it is the agreement of both that does, since the decoder's edges are as coarse as those
    of the maps. Inside a training step it is the maps alone (`refine`, then `agree`): there the labels come back as the
    next opinion, and the one run that refined and opened the agreement each time got worse (LOG.md).

    Args:
        images_B3HW: in [0, 1].
        scores_BKhw: class scores, on any grid.
        present_BK: bool, on the host.
        section: the settings.
        opinion_BCHW: the decoder's probabilities, at image size.

    Returns:
        scores (B, K, H, W) and None; with an opinion, the probabilities of the classes and of the background (B, H, W).
    """
    height, width = images_B3HW.shape[2:]
    size = working_size(height, width, REFINE_SIDE)
    images_B3HW = _resize(images_B3HW, size)
    scores_BKHW = F.interpolate(scores_BKhw.float(), size=size, mode="bilinear", align_corners=False)
    if opinion_BCHW is None:
        return _resize(refine(images_B3HW, scores_BKHW, present_BK, section), (height, width)), None
    scores_BKHW = normalise_scores(scores_BKHW, present_BK)
    joint_BCHW = agree(scores_BKHW, present_BK, _resize(opinion_BCHW, size), section)
    joint_BCHW = follow_edges(images_B3HW, joint_BCHW, with_background(present_BK), section)
    joint_BCHW = _resize(joint_BCHW, (height, width))
    return joint_BCHW[:, 1:], joint_BCHW[:, 0]


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
    background_HW: Tensor | None = None,
    crf: Crf = crf_ranks,
    crf_settings: CrfSettings = CRF_SETTINGS,
) -> Tensor:
    """The pseudo label of refined scores.

    Args:
        scores_KHW: class scores in [0, 1].
        present_K: bool, the image-level labels, on the host.
        section: the settings.
        saliency_HW: in [0, 1], or None.
        image_3HW: in [0, 1]; with it the dense CRF decides, on the background score of the rule.
        background_HW: the background's score where there is one; scores are then probabilities, and a pixel belongs
            to the likeliest where it is likely enough.
        crf: where it runs.
        crf_settings: of the pairwise terms.

    Returns:
        (H, W) uint8.
    """
    rule: Rule = background_rule(section)
    if background_HW is not None:
        rule = Confidence(background_HW, section.confidence)
    background: Background = rule
    if image_3HW is not None:
        background = CrfBackground(scores_KHW, present_K, image_3HW, rule, crf, crf_settings)
    return complete_labels(
        scores_KHW,
        present_K,
        background=background,
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
    ignored (Ahn, Cho and Kwak 2019, IRNet, section 4). Probabilities it takes as they are.
    """

    scores_KHW: Tensor
    present_K: Tensor
    image_3HW: Tensor
    rule: Rule
    crf: Crf = crf_ranks
    settings: CrfSettings = CRF_SETTINGS

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """(H, W) uint8."""
        if not isinstance(self.rule, BackgroundBand):
            return self._against(self.rule.score(best_HW))
        likely_HW = self._against(torch.full_like(best_HW, self.rule.low))
        sure_HW = self._against(torch.full_like(best_HW, self.rule.high))
        doubtful_HW = (sure_HW == 0) & (likely_HW > 0)
        return sure_HW.masked_fill(doubtful_HW, IGNORE_INDEX)

    def _against(self, background_HW: Tensor) -> Tensor:
        scores_CHW = torch.cat([background_HW[None], self.scores_KHW])
        image_HW3 = (self.image_3HW.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        present_K = self.present_K.cpu().numpy().astype(np.bool_)
        scores = scores_CHW.float().cpu().numpy()
        label_HW = crf_labels(image_HW3, scores, present_K, settings=self.settings, crf=self.crf)
        return torch.from_numpy(label_HW).to(self.scores_KHW.device)
