"""From class scores to pseudo labels: one way for `make-pseudo`, for training end to end and for the Python interface.

`refine_scores` works on images at the working size, of at most ``WORKING_AREA`` squared pixels (`working_size`).
`complete` brings what it returns to the size of the photo, in bands of rows, and decides each pixel.

Shape suffixes: B images, C = K + 1 label channels with the background first, K classes, R present (image, class) pairs,
h x w any grid, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wsss.config import CrfSection, LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.data.scaled import reduced_size
from wsss.labels.agreement import Confidence, joint_probabilities, split_background, with_background
from wsss.labels.bands import pair_probabilities
from wsss.labels.completion import (
    Background,
    BackgroundBand,
    PowerBackground,
    complete_labels,
    remove_speckles,
    strongest,
)
from wsss.labels.crf import Crf, crf_probabilities
from wsss.labels.crf_label import crf_label, crf_size
from wsss.labels.pamr import DILATIONS, pamr
from wsss.labels.refiner import Refiner
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores

WORKING_AREA = 512
"""Side, in pixels, of the square whose area bounds the images at which scores are refined: time and memory of PAMR grow
with the area, and its reach in pixels suits photos of about this size."""

Order = Literal["agree-then-refine", "refine-then-agree"]
"""Whether PAMR refines what class maps and decoder agree on, or the class maps before they are compared.

- "agree-then-refine" (`make-pseudo`): the decoder's edges are as coarse as those of the maps, so both are refined
  together. The labels are not opened: that removed thin parts which the refinement had found. On 110 images of VOC
  animals 81.2 mIoU, and 79.2 if opened; "refine-then-agree" has 80.5 and 80.2 (benchmarks/RESULTS.md).
- "refine-then-agree" (inside a training step): the maps are refined, and the labels opened. The labels of one step
  train the decoder that the next steps compare with; the one run with "agree-then-refine" inside the step lost mIoU
  from epoch to epoch (LOG.md).

Without a decoder there is nothing to agree with: both orders refine the maps and open the labels.
"""

OPENS_AGREED = {"agree-then-refine": False, "refine-then-agree": True}
"""Whether an order applies the opening of the settings to labels that maps and decoder agree on."""


@dataclass(frozen=True, slots=True)
class Refined:
    """Scores of a batch that follow the edges of its images, at the working size.

    Attributes:
        scores: class scores in [0, 1], each map divided by its maximum; with a decoder probabilities.
        background_Bhw: the background's probability, in [0, 1]; None without a decoder.
        opening: side, in pixels of the labels, of the square that a foreground region must hold; 0 keeps everything.
    """

    scores: PresentMaps
    background_Bhw: Tensor | None
    opening: int

    def to(self, device: torch.device | str) -> Refined:
        """The same on another device."""
        background_Bhw = None if self.background_Bhw is None else self.background_Bhw.to(device)
        return replace(self, scores=self.scores.to(device), background_Bhw=background_Bhw)

    def select(self, images: Sequence[int]) -> Refined:
        """The same of some images, in this order."""
        background_Bhw = self.background_Bhw
        if background_Bhw is not None:
            background_Bhw = torch.cat([background_Bhw[image : image + 1] for image in images])
        return replace(self, scores=self.scores.select(images), background_Bhw=background_Bhw)


def working_size(height: int, width: int) -> tuple[int, int]:
    """Size at which scores are refined: the image's, or that of ``WORKING_AREA`` squared pixels where it is larger."""
    return reduced_size(height, width, WORKING_AREA)


def resized(maps_BRHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with antialiasing where it becomes smaller; the same tensor where nothing changes."""
    height, width = maps_BRHW.shape[2:]
    if size == (height, width):
        return maps_BRHW
    smaller = size[0] * size[1] < height * width
    return F.interpolate(maps_BRHW, size=size, mode="bilinear", align_corners=False, antialias=smaller)


def background_rule(section: LabelsSection) -> PowerBackground | BackgroundBand:
    """What a class score must beat for the pixel to belong to the class."""
    if section.background == "power":
        return PowerBackground(exponent=section.exponent)
    return BackgroundBand(low=section.low, high=section.high)


def opening_of(section: LabelsSection, *, order: Order, agreed: bool) -> int:
    """The opening that is applied, in pixels: that of the settings, or 0 where the order leaves agreed labels alone."""
    return 0 if agreed and not OPENS_AGREED[order] else section.opening


@torch.no_grad()
def refine_scores(
    images_B3HW: Tensor,
    scores: PresentMaps,
    section: LabelsSection,
    *,
    log_probabilities_BChw: Tensor | None = None,
    order: Order = "agree-then-refine",
    peaks_R: Tensor | None = None,
    refiner: Refiner | None = None,
) -> Refined:
    """Bring class scores to image size, combine them with the decoder and make them follow the edges of the images.

    Args:
        images_B3HW: in [0, 1], at their `working_size`.
        scores: class scores of these images, on any grid.
        section: the settings.
        log_probabilities_BChw: the decoder's log-probabilities (or logits) of all C classes, on any grid; None without
            a decoder.
        order: whether maps and decoder are combined before or after the refinement.
        peaks_R: the largest score of each map, in [0, 1]; None: 1. Windows of a larger picture have their share of it.
        refiner: takes the place of PAMR.
    """
    size = (images_B3HW.shape[2], images_B3HW.shape[3])
    scores = scores.at_size(size)
    agreed = log_probabilities_BChw is not None
    opening = opening_of(section, order=order, agreed=agreed)
    if not agreed or order == "refine-then-agree":
        scores = follow_edges(images_B3HW, scores, section, refiner)
    scores = normalise_scores(scores)
    if peaks_R is not None:
        scores = scores.with_values(scores.values_Rhw * peaks_R[:, None, None].to(scores.device))
    if log_probabilities_BChw is None:
        return Refined(scores, None, opening)
    joint = agree(scores, log_probabilities_BChw, section)
    if order == "agree-then-refine":
        joint = follow_edges(images_B3HW, joint, section, refiner)
    background_Bhw, scores = split_background(joint)
    return Refined(scores, background_Bhw, opening)


def agree(scores: PresentMaps, log_probabilities_BChw: Tensor, section: LabelsSection) -> PresentMaps:
    """Probabilities that maps and decoder agree on, with the background as channel 0; see `joint_probabilities`."""
    present_BC = with_background(scores.present)
    image_R, class_R = present_BC.nonzero(as_tuple=True)
    values_RHW = pair_probabilities(log_probabilities_BChw, scores.size, image_R, class_R)
    decoder = PresentMaps.of(values_RHW, present_BC)
    return joint_probabilities(scores, decoder, background_rule(section), section.softness)


def follow_edges(
    images_B3HW: Tensor, maps: PresentMaps, section: LabelsSection, refiner: Refiner | None = None
) -> PresentMaps:
    """PAMR with the iterations and the stride of the settings, or a refiner with its own number of steps.

    Args:
        images_B3HW: in [0, 1].
        maps: at image size.
        section: iterations (0 leaves the maps as they are) and the stride: of 2 or more, images and maps are made
            smaller by it first, and the refined maps large again.
        refiner: takes the place of PAMR; its maps are in [0, 1].
    """
    if section.pamr_iterations == 0 and refiner is None:
        return maps
    size, stride = (images_B3HW.shape[2], images_B3HW.shape[3]), section.pamr_stride
    coarse = (max(1, round(size[0] / stride)), max(1, round(size[1] / stride)))
    images, small, dilations = (
        resized(images_B3HW, coarse),
        maps.at_size(coarse, antialias=True),
        strided(DILATIONS, stride),
    )
    if refiner is not None:
        refined = refiner.refine(images, small, dilations)
    else:
        refined = pamr(images, small, iterations=section.pamr_iterations, dilations=dilations)
    return refined.at_size(size, antialias=True)


def strided(dilations: Sequence[int], stride: int) -> tuple[int, ...]:
    """Distances, in pixels of an image made ``stride`` times smaller, that cover the same distances of the scene.

    At least 1 each. Rings that become equal are kept as often as they were, so that the shares of near and far
    neighbours stay: the default distances have a mean square of 134 at stride 1, in pixels of the image, 135 at 2 and
    139 at 4; taken once each they would have 161 and 200, unchanged 537 and 2147.
    """
    return tuple(max(1, round(dilation / stride)) for dilation in dilations)


@torch.no_grad()
def complete(
    refined: Refined,
    size: tuple[int, int],
    section: LabelsSection,
    *,
    saliency_BHW: Tensor | None = None,
    images_HW3: Sequence[NDArray[np.uint8]] | None = None,
    crf: Crf = crf_probabilities,
    crf_section: CrfSection | None = None,
) -> Tensor:
    """The pseudo labels of refined scores.

    Args:
        refined: of B images.
        size: (H, W) of the labels. Scores are upsampled to it, bilinear, in bands of rows; a size equal to theirs
            changes no bit of them.
        section: the settings.
        saliency_BHW: at label size, uint8 in 0..255 or floating point in [0, 1], or None.
        images_HW3: RGB of each image, at label size or reduced; with them the dense CRF replaces the background rule.
        crf: runs the CRF, here or in another process.
        crf_section: of the CRF; None takes its defaults.

    Returns:
        (B, H, W) uint8.

    Raises:
        MachineError: the CRF is used and not installed.
    """
    rule = background_rule(section) if refined.background_Bhw is None else Confidence(section.confidence)
    background: Background | Tensor = rule
    if images_HW3 is not None:
        chosen = crf_section or CrfSection()
        labels = [
            _crf_label(refined.select([i]), size, rule, image_HW3, crf, chosen)
            for i, image_HW3 in enumerate(images_HW3)
        ]
        background = torch.stack(labels)
    return complete_labels(
        refined.scores,
        size,
        background=background,
        background_Bhw=refined.background_Bhw,
        saliency_BHW=saliency_BHW,
        saliency_threshold=section.saliency_threshold,
        mining_quantile=section.mining_quantile,
        opening=refined.opening,
    )


@torch.no_grad()
def complete_bands(
    bands: Iterable[tuple[slice, Tensor]], size: tuple[int, int], present_1K: Tensor, section: LabelsSection
) -> Tensor:
    """The pseudo label of one image whose refined scores come in bands of rows; no saliency, no CRF.

    Args:
        bands: rows, and the scores (R, Y, W) at image size; with a decoder (``section.decoder``) one channel more, the
            background's probability.
        size: (H, W).
        present_1K: bool, the R present classes.
        section: the settings as they take effect.

    Returns:
        (H, W) uint8, on the CPU.
    """
    label_1HW, count = torch.empty(1, *size, dtype=torch.uint8), int(present_1K.sum())
    rule = Confidence(section.confidence) if section.decoder else background_rule(section)
    for rows, band_CYW in bands:
        background_1YW = band_CYW[count:] if section.decoder else None
        label_1YW = rule.label(*strongest(PresentMaps.of(band_CYW[:count], present_1K)), background_1YW)
        label_1HW[:, rows] = label_1YW.cpu()
    return remove_speckles(label_1HW, section.opening)[0]


@torch.no_grad()
def label_images(
    images_B3HW: Tensor,
    scores: PresentMaps,
    size: tuple[int, int],
    section: LabelsSection,
    *,
    log_probabilities_BChw: Tensor | None = None,
    order: Order = "agree-then-refine",
    saliency_BHW: Tensor | None = None,
) -> Tensor:
    """`complete` of `refine_scores`: pseudo labels (B, H, W) uint8 without a CRF, on one device."""
    refined = refine_scores(images_B3HW, scores, section, log_probabilities_BChw=log_probabilities_BChw, order=order)
    return complete(refined, size, section, saliency_BHW=saliency_BHW)


def _crf_label(
    refined: Refined,
    size: tuple[int, int],
    rule: PowerBackground | BackgroundBand | Confidence,
    image_HW3: NDArray[np.uint8],
    crf: Crf,
    settings: CrfSection,
) -> Tensor:
    """(H, W) uint8: the dense CRF over the background and the present classes of one image.

    The power rule gives the CRF its background score. A band gives it one at each end: what is foreground against the
    high one is foreground, what is background against the low one is background, the rest is ignored (Ahn, Cho and Kwak
    2019, IRNet, section 4). Probabilities are used as they are, and nothing is ignored.
    """
    at = crf_size(*size, settings)
    scores_Rhw = refined.scores.at_size(at).values_Rhw.cpu()
    best_hw = scores_Rhw.amax(dim=0) if len(scores_Rhw) else scores_Rhw.new_zeros(at)
    index_C = torch.cat([torch.zeros(1, dtype=torch.long), refined.scores.class_R + 1]).to(torch.uint8)

    def against(background_hw: Tensor) -> Tensor:
        return crf_label(image_HW3, torch.cat([background_hw[None], scores_Rhw]), index_C, size, settings, crf)

    if refined.background_Bhw is not None:
        background_1hw = refined.background_Bhw[None].float()
        background_hw = F.interpolate(background_1hw, size=at, mode="bilinear", align_corners=False)[0, 0].cpu()
        label_HW = against(background_hw)
    elif isinstance(rule, BackgroundBand):
        likely_HW = against(torch.full_like(best_hw, rule.low))
        sure_HW = against(torch.full_like(best_hw, rule.high))
        label_HW = sure_HW.masked_fill((sure_HW == 0) & (likely_HW > 0), IGNORE_INDEX)
    else:
        assert isinstance(rule, PowerBackground)
        label_HW = against(rule.score(best_hw))
    return label_HW.to(refined.scores.device)
