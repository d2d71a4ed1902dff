from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.agreement import Confidence, joint_probabilities, split_background, with_background
from wsss.labels.completion import BackgroundBand, PowerBackground, complete_labels
from wsss.maps.present import PresentMaps

BAND = BackgroundBand(low=0.4, high=0.6)


def dense_joint(
    scores_BKHW: Tensor,
    present_BK: Tensor,
    decoder_BCHW: Tensor,
    rule: PowerBackground | BackgroundBand,
    softness: float,
) -> Tensor:
    """(B, C, H, W) of dense inputs."""
    scores = PresentMaps.from_dense(scores_BKHW, present_BK)
    decoder = PresentMaps.from_dense(decoder_BCHW, with_background(present_BK))
    return joint_probabilities(scores, decoder, rule, softness).dense()


def joint(scores: list[list[float]], decoder_rows: list[list[float]], present: list[bool]) -> Tensor:
    """(C, pixels) of one image; rows are classes (in decoder_rows the background first), columns pixels."""
    scores_BKHW, decoder_BCHW = torch.tensor(scores)[None, :, None], torch.tensor(decoder_rows)[None, :, None]
    return dense_joint(scores_BKHW, torch.tensor([present]), decoder_BCHW, BAND, 0.1)[0, :, 0]


def test_the_geometric_mean_by_hand() -> None:
    # odds of the maps e^((0.7 - 0.5) / 0.1) = e^2 for the class, of the decoder 1 : 3; the mean of the log-odds is
    odds = math.exp((2 - math.log(3)) / 2)
    probabilities_CN = joint([[0.7]], [[0.75], [0.25]], [True])
    torch.testing.assert_close(probabilities_CN.flatten(), torch.tensor([1.0, odds]) / (1 + odds))


def test_it_is_confident_where_both_are() -> None:
    # both give the class; maps the class, decoder the background; both the background; maps undecided, decoder certain
    scores, decoder_rows = [[0.9, 0.7, 0.1, 0.5]], [[0.1, 0.9, 0.95, 0.05], [0.9, 0.1, 0.05, 0.95]]
    probability_N = joint(scores, decoder_rows, [True])[1]
    assert probability_N[0] > 0.95
    assert 0.3 < probability_N[1] < 0.6
    assert probability_N[2] < 0.05
    assert probability_N[3] > 0.8


def test_absent_classes_are_never_chosen() -> None:
    probabilities_CN = joint([[0.2], [1.0]], [[0.05], [0.05], [0.9]], [True, False])
    assert probabilities_CN[2].item() == 0.0
    assert probabilities_CN.sum().item() == pytest.approx(1.0)


def test_an_image_without_tags_is_background() -> None:
    assert joint([[0.0, 0.0]], [[0.1, 0.5], [0.9, 0.5]], [False]).tolist() == [[1, 1], [0, 0]]


def test_each_image_has_its_own_tags() -> None:
    torch.manual_seed(0)
    scores_BKHW, decoder_BCHW = torch.rand(2, 2, 3, 4), torch.randn(2, 3, 3, 4).softmax(dim=1)
    present_BK = torch.tensor([[True, False], [True, True]])
    both = dense_joint(scores_BKHW, present_BK, decoder_BCHW, BAND, 0.1)
    for i in range(2):
        one = slice(i, i + 1)
        alone = dense_joint(scores_BKHW[one], present_BK[one], decoder_BCHW[one], BAND, 0.1)
        torch.testing.assert_close(both[one], alone)
    assert with_background(present_BK).tolist() == [[True, True, False], [True, True, True]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 6))
def test_it_is_the_formula_over_all_classes(seed: int, images: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_BKHW = torch.rand(images, classes, 2, 3, generator=generator)
    decoder_BCHW = (3 * torch.randn(images, classes + 1, 2, 3, generator=generator)).softmax(dim=1)
    present_BK = torch.rand(images, classes, generator=generator) < 0.5
    absent_BCHW = ~with_background(present_BK)[:, :, None, None]

    def shares(logits_BCHW: Tensor) -> Tensor:
        weights_BCHW = logits_BCHW.double().exp().masked_fill(absent_BCHW, 0)
        return weights_BCHW / weights_BCHW.sum(dim=1, keepdim=True)

    best_B1HW = (scores_BKHW * present_BK[:, :, None, None]).amax(dim=1, keepdim=True)
    maps_BCHW = shares(torch.cat([BAND.score(best_B1HW), scores_BKHW], dim=1) / 0.1)
    present_decoder_BCHW = shares(decoder_BCHW.clamp(min=1e-4).log())
    expected_BCHW = shares((maps_BCHW.clamp(min=1e-4) * present_decoder_BCHW.clamp(min=1e-4)).sqrt().log())
    joint_BCHW = dense_joint(scores_BKHW, present_BK, decoder_BCHW, BAND, 0.1)
    torch.testing.assert_close(joint_BCHW.double(), expected_BCHW, atol=1e-6, rtol=1e-5)


def test_the_power_rule_sets_its_own_background_against_the_classes() -> None:
    scores_BKHW, decoder_BCHW = torch.tensor([[[[0.01, 0.9]]]]), torch.full((1, 2, 1, 2), 0.5)
    rule = PowerBackground(exponent=32)
    joint_BCHW = dense_joint(scores_BKHW, torch.tensor([[True]]), decoder_BCHW, rule, 0.1)
    assert joint_BCHW.argmax(dim=1).tolist() == [[[0, 1]]]


def test_the_likeliest_wins_where_it_is_likely_enough() -> None:
    scores_KHW = torch.tensor([[[0.1, 0.45, 0.7]], [[0.2, 0.15, 0.1]]])
    scores = PresentMaps.of(scores_KHW, torch.tensor([[True, True]]))
    background_1HW = torch.tensor([[[0.7, 0.4, 0.2]]])
    (label_HW,) = complete_labels(scores, (1, 3), background=Confidence(0.6), background_Bhw=background_1HW, opening=0)
    assert label_HW.tolist() == [[0, IGNORE_INDEX, 1]]
    assert label_HW.dtype == torch.uint8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_a_certain_decoder_never_yields_nan_and_probabilities_sum_to_one(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_KHW = torch.rand(classes, 3, 4, generator=generator)
    present_K = torch.rand(classes, generator=generator) < 0.5
    decoder_CHW = torch.zeros(classes + 1, 3, 4)
    decoder_CHW[int(torch.randint(classes + 1, (), generator=generator))] = 1.0
    joint_CHW = dense_joint(scores_KHW[None], present_K[None], decoder_CHW[None], BAND, 0.1)[0]
    torch.testing.assert_close(joint_CHW.sum(dim=0), torch.ones(3, 4))
    joint = PresentMaps.from_dense(joint_CHW[None], with_background(present_K[None]))
    background_1HW, scores = split_background(joint)
    assert torch.equal(background_1HW[0], joint_CHW[0])
    assert torch.equal(scores.dense()[0], joint_CHW[1:])
    (label_HW,) = complete_labels(scores, (3, 4), background=Confidence(0.6), background_Bhw=background_1HW, opening=0)
    assert set(label_HW.unique().tolist()) <= {0, IGNORE_INDEX, *(present_K.nonzero().flatten() + 1).tolist()}
