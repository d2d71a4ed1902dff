"""From scores to labels: sizes, the background rules, the CRF instead of a rule."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import CrfSection, LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.labels.agreement import split_background
from wsss.labels.completion import BackgroundBand, PowerBackground
from wsss.labels.pamr import DILATIONS, pamr
from wsss.labels.recipe import (
    Refined,
    agree,
    background_rule,
    complete,
    label_images,
    opening_of,
    refine_scores,
    resized,
    strided,
    working_size,
)
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores

PLAIN = LabelsSection(pamr_iterations=0, opening=0)
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="pydensecrf is not installed: pip install 'wsss[crf]'"
)


def refined_of(scores_KHW: Tensor, present_K: Tensor, background_HW: Tensor | None = None) -> Refined:
    """One image, nothing opened."""
    scores = PresentMaps.from_dense(scores_KHW[None], present_K[None])
    return Refined(scores, None if background_HW is None else background_HW[None], 0)


def completed(scores_KHW: Tensor, present_K: Tensor, section: LabelsSection, **options: Any) -> Tensor:
    """The label map (H, W) of one image."""
    size = (scores_KHW.shape[1], scores_KHW.shape[2])
    return complete(refined_of(scores_KHW, present_K), size, section, **options)[0]


def eight_bits(image_3HW: Tensor) -> list[Any]:
    return [(image_3HW.permute(1, 2, 0) * 255).round().byte().numpy()]


def test_three_pixels_by_hand() -> None:
    scores_KHW = torch.tensor([[[0.2, 0.4, 0.9]], [[0.9, 0.3, 0.9]]])
    present_K = torch.tensor([True, False])
    section = PLAIN.model_copy(update={"low": 0.25, "high": 0.55})
    assert completed(scores_KHW, present_K, section).tolist() == [[0, IGNORE_INDEX, 1]]
    section = PLAIN.model_copy(update={"background": "power", "exponent": 1.0})
    assert completed(scores_KHW, present_K, section).tolist() == [[0, 0, 1]]


def test_the_rule_follows_the_config() -> None:
    assert background_rule(LabelsSection(low=0.1, high=0.2)) == BackgroundBand(low=0.1, high=0.2)
    assert background_rule(LabelsSection(background="power", exponent=4)) == PowerBackground(exponent=4)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((375, 500), 512, (375, 500)),
        ((512, 512), 512, (512, 512)),
        ((1024, 1024), 512, (512, 512)),
        ((512, 2048), 512, (256, 1024)),
        ((1, 10_000), 10, (1, 1000)),
    ],
)
def test_working_size(
    size: tuple[int, int], side: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.labels.recipe.WORKING_AREA", side)
    assert working_size(*size) == expected


@pytest.mark.parametrize("size", [(3000, 2000), (640, 500), (7, 90000)])
def test_working_size_keeps_the_area(size: tuple[int, int]) -> None:
    height, width = working_size(*size)
    assert height * width == pytest.approx(min(512**2, size[0] * size[1]), rel=0.15)
    assert height <= size[0]
    assert width <= size[1]


def picture(height: int, width: int) -> Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return F.interpolate(coarse, size=(height, width), mode="nearest")[0]


def test_without_iterations_the_scores_are_only_normalised() -> None:
    torch.manual_seed(1)
    present_BK = torch.tensor([[True, False, True], [False, True, False]])
    scores = PresentMaps.from_dense(torch.rand(2, 3, 4, 5), present_BK)
    refined = refine_scores(torch.rand(2, 3, 4, 5), scores, PLAIN)
    assert torch.equal(refined.scores.values_Rhw, normalise_scores(scores).values_Rhw)
    assert refined.scores.dense().amax(dim=(2, 3)).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_refined_scores_are_those_of_pamr() -> None:
    torch.manual_seed(1)
    image_B3HW = picture(16, 24)[None]
    scores = PresentMaps.from_dense(torch.rand(1, 2, 16, 24), torch.tensor([[True, True]]))
    expected = normalise_scores(pamr(image_B3HW, scores, iterations=3))
    refined = refine_scores(image_B3HW, scores, LabelsSection(pamr_iterations=3))
    torch.testing.assert_close(refined.scores.values_Rhw, expected.values_Rhw)
    assert refined.background_Bhw is None


def test_images_larger_than_the_working_area() -> None:
    """They are refined at a quarter of the pixels; the label has the image's size and is near that of full size."""
    image_13HW, section = picture(128, 192)[None], LabelsSection(opening=4, low=0.5, high=0.6)
    scores = PresentMaps.from_dense(torch.rand(1, 2, 8, 12), torch.tensor([[True, False]]))
    whole_HW, coarse_HW = (
        label_images(resized(image_13HW, size), scores, (128, 192), section)[0] for size in ((128, 192), (64, 96))
    )
    assert whole_HW.shape == coarse_HW.shape == (128, 192)
    assert set(coarse_HW.unique().tolist()) == {0, 1, IGNORE_INDEX}
    assert 0.7 < (whole_HW == coarse_HW).float().mean() < 1


@pytest.mark.parametrize(
    ("stride", "expected"), [(1, (1, 2, 4, 8, 12, 24)), (2, (1, 1, 2, 4, 6, 12)), (4, (1, 1, 1, 2, 3, 6))]
)
def test_dilations_reach_as_far_at_any_stride(stride: int, expected: tuple[int, ...]) -> None:
    dilations = DILATIONS
    assert strided(dilations, stride) == expected
    reach = [sum((d * step) ** 2 for d in rings) for rings, step in ((dilations, 1), (expected, stride))]
    assert reach[1] == pytest.approx(reach[0], rel=0.04)


def test_a_stride_refines_the_small_image() -> None:
    torch.manual_seed(2)
    images_B3HW, scores_BKHW = torch.rand(2, 3, 12, 15), torch.rand(2, 2, 12, 15)
    present_BK = torch.tensor([[True, False], [True, True]])
    images_B3hw, scores_BKhw = (
        F.interpolate(maps, size=(6, 8), mode="bilinear", align_corners=False, antialias=True)
        for maps in (images_B3HW, scores_BKHW)
    )
    small = pamr(
        images_B3hw, PresentMaps.from_dense(scores_BKhw, present_BK), iterations=3, dilations=strided(DILATIONS, 2)
    )
    expected = normalise_scores(small.at_size((12, 15)))
    section = LabelsSection(pamr_iterations=3, pamr_stride=2)
    refined = refine_scores(images_B3HW, PresentMaps.from_dense(scores_BKHW, present_BK), section)
    torch.testing.assert_close(refined.scores.values_Rhw, expected.values_Rhw)
    assert refined.scores.dense().amax(dim=(2, 3)).tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("size", [(64, 96), (37, 53)])
def test_a_stride_stays_near_the_whole(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    image_3HW = picture(64, 96)[:, : size[0], : size[1]]
    scores = PresentMaps.from_dense(torch.rand(1, 2, 8, 12), torch.tensor([[True, False]]))
    whole, coarse = (
        refine_scores(image_3HW[None], scores, LabelsSection(pamr_stride=stride)).scores.values_Rhw for stride in (1, 2)
    )
    assert coarse.shape == (1, *size)
    assert not torch.equal(whole, coarse)
    assert torch.corrcoef(torch.stack([whole.flatten(), coarse.flatten()]))[0, 1] > 0.8


def test_a_stride_beyond_the_image_leaves_one_pixel() -> None:
    scores = PresentMaps.from_dense(torch.rand(1, 1, 2, 2), torch.tensor([[True]]))
    refined = refine_scores(picture(8, 16)[None], scores, LabelsSection(pamr_stride=100))
    torch.testing.assert_close(refined.scores.values_Rhw, torch.ones(1, 8, 16))


def red_square(size: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """An image of a red square, the mask of the square, and scores that are too wide."""
    torch.manual_seed(0)
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[10:30, 12:30] = True
    red, green = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.6, 0.2])
    image_3HW = torch.where(inside, red[:, None, None], green[:, None, None]) + 0.02 * torch.randn(3, size, size)
    scores_HW = torch.full((size, size), 0.02)
    scores_HW[6:34, 8:34] = 0.45
    scores_HW[14:26, 16:26] = 1.0
    return image_3HW.clamp(0, 1), inside, torch.stack([scores_HW, torch.zeros_like(scores_HW)])


@needs_pydensecrf
@pytest.mark.parametrize("background", ["power", "band"])
def test_the_crf_follows_the_edges(background: Literal["power", "band"]) -> None:
    image_3HW, inside_HW, scores_KHW = red_square()
    section = LabelsSection(background=background, exponent=1.0, low=0.2, high=0.4, opening=0)
    label_HW = completed(scores_KHW, torch.tensor([True, False]), section, images_HW3=eight_bits(image_3HW))
    assert label_HW.dtype == torch.uint8
    decided_HW = label_HW != IGNORE_INDEX
    assert torch.equal((label_HW == 1)[decided_HW], inside_HW[decided_HW])
    assert decided_HW.float().mean() > 0.9
    without_HW = completed(scores_KHW, torch.tensor([True, False]), section)
    assert not torch.equal(without_HW, label_HW)


@needs_pydensecrf
def test_the_crf_of_a_band_is_unsure_between_its_ends() -> None:
    """Uniform image, one score: above the low end, below the high one."""
    image_3HW, scores_KHW = torch.full((3, 12, 12), 0.5), torch.full((1, 12, 12), 0.4)
    present_K = torch.tensor([True])
    for low, high, expected in ((0.1, 0.2, 1), (0.1, 0.9, IGNORE_INDEX), (0.8, 0.9, 0)):
        section = LabelsSection(low=low, high=high, opening=0)
        label_HW = completed(scores_KHW, present_K, section, images_HW3=eight_bits(image_3HW))
        assert set(label_HW.flatten().tolist()) == {expected}


@needs_pydensecrf
def test_photos_beyond_the_side_are_refined_smaller() -> None:
    image_3HW, inside_HW, scores_KHW = red_square()
    section = LabelsSection(background="power", exponent=1.0, opening=0)
    present_K, images_HW3 = torch.tensor([True, False]), eight_bits(image_3HW)
    label_HW = completed(scores_KHW, present_K, section, images_HW3=images_HW3, crf_section=CrfSection(side=30))
    assert label_HW.shape == (40, 40)
    assert ((label_HW == 1) == inside_HW).float().mean() > 0.95


def test_the_crf_without_a_tag_is_background() -> None:
    label_HW = completed(
        torch.zeros(2, 8, 9), torch.zeros(2, dtype=torch.bool), PLAIN, images_HW3=eight_bits(torch.rand(3, 8, 9))
    )
    assert label_HW.shape == (8, 9)
    assert not label_HW.any()


def test_the_crf_sees_no_more_pixels_than_its_side() -> None:
    """Its output is upsampled: two halves of the image stay two halves."""
    seen: list[Any] = []

    def crf(image_HW3: Any, scores_CHW: Any, settings: Any) -> Any:
        seen.append((image_HW3.shape, scores_CHW.shape))
        probabilities_CHW = np.full(scores_CHW.shape, 0.1, dtype=np.float32)
        probabilities_CHW[0, :, :5], probabilities_CHW[1, :, 5:] = 0.9, 0.9
        return probabilities_CHW

    scores = PresentMaps.from_dense(torch.rand(1, 3, 10, 10), torch.tensor([[False, False, True]]))
    images_HW3 = [np.zeros((40, 40, 3), dtype=np.uint8)]
    label_BHW = complete(
        Refined(scores, None, 0),
        (40, 40),
        LabelsSection(background="power"),
        images_HW3=images_HW3,
        crf=crf,
        crf_section=CrfSection(side=10),
    )
    assert seen == [((10, 10, 3), (2, 10, 10))]
    assert (label_BHW[0, :, :20] == 0).all()
    assert (label_BHW[0, :, 20:] == 3).all()


def test_maps_and_decoder_must_agree() -> None:
    section = PLAIN.model_copy(update={"low": 0.4, "high": 0.6, "softness": 0.1, "confidence": 0.6})
    scores = PresentMaps.from_dense(torch.tensor([[[[1.0, 1.0, 0.1]]]]), torch.tensor([[True]]))
    log_BCHW = torch.tensor([[[[0.1, 0.99, 0.9]], [[0.9, 0.01, 0.1]]]]).log()
    (label_HW,) = label_images(torch.zeros(1, 3, 1, 3), scores, (1, 3), section, log_probabilities_BChw=log_BCHW)
    assert label_HW.tolist() == [[1, IGNORE_INDEX, 0]]


def test_the_order_decides_what_is_refined_and_opened() -> None:
    """PAMR refines the joint probabilities, which still sum to 1, or the scores before they join the decoder's."""
    torch.manual_seed(4)
    images_B3HW = picture(16, 24)[None]
    scores = PresentMaps.from_dense(torch.rand(1, 2, 16, 24), torch.tensor([[False, True]]))
    log_BCHW = torch.randn(1, 3, 16, 24).log_softmax(dim=1)
    section = LabelsSection(pamr_iterations=3, opening=7)
    joint = agree(normalise_scores(scores), log_BCHW, section)
    assert joint.class_R.tolist() == [0, 2]
    expected = pamr(images_B3HW, joint, iterations=3)
    refined = refine_scores(images_B3HW, scores, section, log_probabilities_BChw=log_BCHW)
    assert refined.background_Bhw is not None
    assert refined.opening == 0
    torch.testing.assert_close(torch.cat([refined.background_Bhw, refined.scores.values_Rhw]), expected.values_Rhw)
    torch.testing.assert_close(refined.scores.values_Rhw + refined.background_Bhw, torch.ones(1, 16, 24))
    before = agree(normalise_scores(pamr(images_B3HW, scores, iterations=3)), log_BCHW, section)
    other = refine_scores(images_B3HW, scores, section, log_probabilities_BChw=log_BCHW, order="refine-then-agree")
    torch.testing.assert_close(other.scores.values_Rhw, split_background(before)[1].values_Rhw)
    assert other.opening == 7
    assert refine_scores(images_B3HW, scores, section).opening == 7
    assert opening_of(section, order="agree-then-refine", agreed=True) == 0


@pytest.mark.parametrize("grid", [(4, 6), (16, 24), (32, 48)])
def test_the_decoder_may_come_on_any_grid(grid: tuple[int, int]) -> None:
    torch.manual_seed(4)
    images_B3HW, present_BK = torch.rand(2, 3, 16, 24), torch.tensor([[False, True], [True, True]])
    scores = PresentMaps.from_dense(torch.rand(2, 2, 4, 6), present_BK)
    log_BChw = torch.randn(2, 3, *grid).log_softmax(dim=1)
    at_image_BCHW = F.interpolate(log_BChw, size=(16, 24), mode="bilinear", align_corners=False)
    ours, theirs = (
        refine_scores(images_B3HW, scores, PLAIN, log_probabilities_BChw=log) for log in (log_BChw, at_image_BCHW)
    )
    torch.testing.assert_close(ours.scores.values_Rhw, theirs.scores.values_Rhw)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("decoder", [False, True])
def test_batches_without_a_tag_are_background(classes: int, decoder: bool) -> None:
    scores = PresentMaps.from_dense(torch.rand(2, classes, 2, 3), torch.zeros(2, classes, dtype=torch.bool))
    log_BChw = torch.randn(2, classes + 1, 2, 3).log_softmax(dim=1) if decoder else None
    for saliency_BHW in (None, torch.zeros(2, 40, 50, dtype=torch.uint8)):
        label_BHW = label_images(
            torch.rand(2, 3, 16, 24),
            scores,
            (40, 50),
            LabelsSection(),
            log_probabilities_BChw=log_BChw,
            saliency_BHW=saliency_BHW,
        )
        assert label_BHW.shape == (2, 40, 50)
        assert not label_BHW.any()


def test_the_crf_takes_probabilities_as_they_are() -> None:
    """The CRF gets the probabilities of the background and of the one present class."""
    seen: list[Any] = []

    def crf(image_HW3: Any, scores_CHW: Any, settings: Any) -> Any:
        seen.append(scores_CHW)
        return scores_CHW

    scores_KHW, background_HW = torch.tensor([[[0.9, 0.1]]]), torch.tensor([[0.1, 0.9]])
    (label_HW,) = complete(
        refined_of(scores_KHW, torch.tensor([True]), background_HW),
        (1, 2),
        PLAIN,
        images_HW3=eight_bits(torch.zeros(3, 1, 2)),
        crf=crf,
    )
    assert label_HW.tolist() == [[1, 0]]
    assert seen[0].tolist() == torch.stack([background_HW, scores_KHW[0]]).tolist()
