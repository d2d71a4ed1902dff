"""From scores to labels: sizes, the background rules, the CRF in the place of a rule."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import LabelsSection
from wsss.data.masks import IGNORE_INDEX
from wsss.labels import recipe
from wsss.labels.completion import BackgroundBand, PowerBackground
from wsss.labels.pamr import DILATIONS, pamr
from wsss.labels.recipe import agree, background_rule, complete, refine, refine_to_image, strided, working_size
from wsss.maps.scores import normalise_scores

PLAIN = LabelsSection(pamr_iterations=0, opening=0)
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="pydensecrf is not installed: pip install 'wsss[crf]'"
)


def test_three_pixels_by_hand() -> None:
    scores_KHW = torch.tensor([[[0.2, 0.4, 0.9]], [[0.9, 0.3, 0.9]]])
    present_K = torch.tensor([True, False])
    section = PLAIN.model_copy(update={"low": 0.25, "high": 0.55})
    assert complete(scores_KHW, present_K, section).tolist() == [[0, IGNORE_INDEX, 1]]
    section = PLAIN.model_copy(update={"background": "power", "exponent": 1.0})
    assert complete(scores_KHW, present_K, section).tolist() == [[0, 0, 1]]


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
def test_working_size(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert working_size(*size, side) == expected


@pytest.mark.parametrize("size", [(3000, 2000), (640, 5), (7, 9000)])
def test_working_size_keeps_the_area(size: tuple[int, int]) -> None:
    height, width = working_size(*size, 100)
    assert height * width == pytest.approx(min(100**2, size[0] * size[1]), rel=0.15)
    assert height <= size[0]
    assert width <= size[1]


def picture(height: int, width: int) -> Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return F.interpolate(coarse, size=(height, width), mode="nearest")[0]


def test_without_iterations_the_scores_are_only_normalised() -> None:
    torch.manual_seed(1)
    scores_BKHW, present_BK = torch.rand(2, 3, 4, 5), torch.tensor([[True, False, True], [False, True, False]])
    refined = refine(torch.rand(2, 3, 4, 5), scores_BKHW, present_BK, PLAIN)
    torch.testing.assert_close(refined, normalise_scores(scores_BKHW, present_BK))
    assert refined.amax(dim=(2, 3)).tolist() == [[1, 0, 1], [0, 1, 0]]


@pytest.fixture
def dilations(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``dilations(1, 2)``: PAMR with these instead of its own, which reach beyond such small images."""
    return lambda *distances: monkeypatch.setattr(recipe, "DILATIONS", distances)


def test_refined_scores_are_those_of_pamr(dilations: Callable[..., None]) -> None:
    dilations(1, 3)
    torch.manual_seed(1)
    image_B3HW, scores_BKHW, present_BK = picture(16, 24)[None], torch.rand(1, 2, 16, 24), torch.tensor([[True, True]])
    section = LabelsSection(pamr_iterations=3)
    expected = normalise_scores(pamr(image_B3HW, scores_BKHW, present_BK, iterations=3, dilations=(1, 3)), present_BK)
    torch.testing.assert_close(refine(image_B3HW, scores_BKHW, present_BK, section), expected)


def test_images_larger_than_the_working_area(dilations: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refined at a quarter of the pixels, in the shape of the image, near what full size gives."""
    image_3HW, present_K = picture(64, 96), torch.tensor([True, False])
    scores_Khw = torch.rand(2, 8, 12)
    reading = image_3HW[None], scores_Khw[None], present_K[None]
    dilations(1, 2)
    (whole,), _ = refine_to_image(*reading, LabelsSection())
    dilations(1)
    monkeypatch.setattr(recipe, "REFINE_SIDE", round((64 * 96 / 4) ** 0.5))
    (coarse,), _ = refine_to_image(*reading, LabelsSection())
    assert whole.shape == coarse.shape == (2, 64, 96)
    assert not whole[1].any()
    assert not coarse[1].any()
    assert coarse.min() >= 0
    assert coarse.max() <= 1
    assert not torch.equal(whole, coarse)
    assert torch.corrcoef(torch.stack([whole[0].flatten(), coarse[0].flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize(
    ("stride", "expected"), [(1, (1, 2, 4, 8, 12, 24)), (2, (1, 1, 2, 4, 6, 12)), (4, (1, 1, 1, 2, 3, 6))]
)
def test_dilations_reach_as_far_at_any_stride(stride: int, expected: tuple[int, ...]) -> None:
    assert strided(DILATIONS, stride) == expected
    reach = [sum((d * step) ** 2 for d in rings) for rings, step in ((DILATIONS, 1), (expected, stride))]
    assert reach[1] == pytest.approx(reach[0], rel=0.04)


def test_a_stride_refines_the_small_image(dilations: Callable[..., None]) -> None:
    dilations(2, 4)
    torch.manual_seed(2)
    images_B3HW, scores_BKHW = torch.rand(2, 3, 12, 15), torch.rand(2, 2, 12, 15)
    present_BK = torch.tensor([[True, False], [True, True]])
    images_B3hw, scores_BKhw = (
        F.interpolate(maps, size=(6, 8), mode="bilinear", align_corners=False, antialias=True)
        for maps in (images_B3HW, scores_BKHW)
    )
    small_BKhw = pamr(images_B3hw, scores_BKhw, present_BK, iterations=3, dilations=(1, 2))
    expected = normalise_scores(F.interpolate(small_BKhw, size=(12, 15), mode="bilinear"), present_BK)
    section = LabelsSection(pamr_iterations=3, pamr_stride=2)
    refined_BKHW = refine(images_B3HW, scores_BKHW, present_BK, section)
    torch.testing.assert_close(refined_BKHW, expected)
    assert refined_BKHW.amax(dim=(2, 3)).tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("size", [(64, 96), (37, 53)])
def test_a_stride_stays_near_the_whole(size: tuple[int, int], dilations: Callable[..., None]) -> None:
    dilations(2, 4)
    torch.manual_seed(3)
    image_3HW, present_K = picture(64, 96)[:, : size[0], : size[1]], torch.tensor([True, False])
    scores_Khw = torch.rand(2, 8, 12)
    reading = image_3HW[None], scores_Khw[None], present_K[None]
    (whole,), _ = refine_to_image(*reading, LabelsSection())
    (coarse,), _ = refine_to_image(*reading, LabelsSection(pamr_stride=2))
    assert coarse.shape == (2, *size)
    assert not torch.equal(whole, coarse)
    assert torch.corrcoef(torch.stack([whole[0].flatten(), coarse[0].flatten()]))[0, 1] > 0.8


def test_a_stride_beyond_the_image_leaves_one_pixel() -> None:
    scores_BKhw, present_BK = torch.rand(1, 1, 2, 2), torch.tensor([[True]])
    refined, _ = refine_to_image(picture(8, 16)[None], scores_BKhw, present_BK, LabelsSection(pamr_stride=100))
    torch.testing.assert_close(refined, torch.ones(1, 1, 8, 16))


def red_square(size: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """An image, where its square lies, and scores that are too wide for it."""
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
    label_HW = complete(scores_KHW, torch.tensor([True, False]), section, image_3HW=image_3HW)
    assert label_HW.dtype == torch.uint8
    decided_HW = label_HW != IGNORE_INDEX
    assert torch.equal((label_HW == 1)[decided_HW], inside_HW[decided_HW])
    assert decided_HW.float().mean() > 0.9
    without_HW = complete(scores_KHW, torch.tensor([True, False]), section)
    assert not torch.equal(without_HW, label_HW)


@needs_pydensecrf
def test_the_crf_of_a_band_is_unsure_between_its_ends() -> None:
    """Uniform image, one score: above the low end, below the high one."""
    image_3HW, scores_KHW = torch.full((3, 12, 12), 0.5), torch.full((1, 12, 12), 0.4)
    present_K = torch.tensor([True])
    for low, high, expected in ((0.1, 0.2, 1), (0.1, 0.9, IGNORE_INDEX), (0.8, 0.9, 0)):
        section = LabelsSection(low=low, high=high, opening=0)
        label_HW = complete(scores_KHW, present_K, section, image_3HW=image_3HW)
        assert set(label_HW.flatten().tolist()) == {expected}


@needs_pydensecrf
def test_the_crf_without_a_tag_is_background() -> None:
    label_HW = complete(torch.zeros(2, 8, 9), torch.zeros(2, dtype=torch.bool), PLAIN, image_3HW=torch.rand(3, 8, 9))
    assert label_HW.shape == (8, 9)
    assert not label_HW.any()


def test_with_an_opinion_maps_and_decoder_must_agree() -> None:
    section = PLAIN.model_copy(update={"low": 0.4, "high": 0.6, "softness": 0.1, "confidence": 0.6})
    scores_BKHW, present_BK = torch.tensor([[[[1.0, 1.0, 0.1]]]]), torch.tensor([[True]])
    opinion_BCHW = torch.tensor([[[[0.1, 0.99, 0.9]], [[0.9, 0.01, 0.1]]]])
    images_B3HW = torch.zeros(1, 3, 1, 3)
    scores_BKHW, background_BHW = refine_to_image(images_B3HW, scores_BKHW, present_BK, section, opinion_BCHW)
    assert background_BHW is not None
    label_HW = complete(scores_BKHW[0], present_BK[0], section, background_HW=background_BHW[0])
    assert label_HW.tolist() == [[1, IGNORE_INDEX, 0]]


def test_on_disk_the_agreement_is_refined(dilations: Callable[..., None]) -> None:
    """PAMR of the joint probabilities of the background and the present class, which sum to 1 before and after."""
    dilations(1, 3)
    torch.manual_seed(4)
    images_B3HW, scores_BKHW, present_BK = (
        picture(16, 24)[None],
        torch.rand(1, 2, 16, 24),
        torch.tensor([[False, True]]),
    )
    opinion_BCHW = torch.randn(1, 3, 16, 24).softmax(dim=1)
    section = LabelsSection(pamr_iterations=3)
    joint_BCHW = agree(normalise_scores(scores_BKHW, present_BK), present_BK, opinion_BCHW, section)
    spoken_BC = torch.tensor([[True, False, True]])
    expected_BCHW = pamr(images_B3HW, joint_BCHW, spoken_BC, iterations=3, dilations=(1, 3))
    refined_BKHW, background_BHW = refine_to_image(images_B3HW, scores_BKHW, present_BK, section, opinion_BCHW)
    assert background_BHW is not None
    torch.testing.assert_close(torch.cat([background_BHW[:, None], refined_BKHW], dim=1), expected_BCHW)
    torch.testing.assert_close(refined_BKHW[:, 1] + background_BHW, torch.ones(1, 16, 24))
    assert not torch.equal(background_BHW, joint_BCHW[:, 0])


def test_the_crf_takes_probabilities_as_they_are() -> None:
    """The background's and that of the one present class."""
    seen: list[Any] = []

    def crf(image_HW3: Any, scores_CHW: Any, settings: Any) -> Any:
        seen.append(scores_CHW)
        return scores_CHW.argmax(axis=0).astype("uint8")

    scores_KHW, background_HW = torch.tensor([[[0.9, 0.1]]]), torch.tensor([[0.1, 0.9]])
    label_HW = complete(
        scores_KHW, torch.tensor([True]), PLAIN, background_HW=background_HW, image_3HW=torch.zeros(3, 1, 2), crf=crf
    )
    assert label_HW.tolist() == [[1, 0]]
    assert seen[0].tolist() == torch.stack([background_HW, scores_KHW[0]]).tolist()
