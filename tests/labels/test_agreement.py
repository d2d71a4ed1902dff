from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.agreement import Agreement
from wsss.labels.completion import BackgroundBand, PowerBackground

BAND = BackgroundBand(low=0.4, high=0.6)


def agreement(
    scores: list[list[float]], opinion: list[list[float]], present: list[bool], *, confidence: float = 0.6
) -> tuple[Agreement, Tensor]:
    """Rows are classes (opinion: the background first), columns the pixels of one line."""
    scores_KHW = torch.tensor(scores)[:, None]
    opinion_CHW = torch.tensor(opinion)[:, None]
    best_HW = (scores_KHW * torch.tensor(present)[:, None, None]).amax(dim=0)
    return Agreement(scores_KHW, torch.tensor(present), opinion_CHW, BAND, 0.1, confidence), best_HW


def test_maps_and_decoder_must_agree() -> None:
    # both say class; maps say class and the decoder background; both background; maps doubt, the decoder is sure
    rule, best_HW = agreement([[0.9, 0.7, 0.1, 0.5]], [[0.1, 0.9, 0.95, 0.05], [0.9, 0.1, 0.05, 0.95]], [True])
    label_HW = rule.label(best_HW, torch.zeros(1, 4, dtype=torch.uint8))
    assert label_HW.tolist() == [[1, IGNORE_INDEX, 0, 1]]
    assert label_HW.dtype == torch.uint8


def test_the_geometric_mean_by_hand() -> None:
    # odds of the maps e^((0.7 - 0.5) / 0.1) = e^2 for the class, of the decoder 1 : 3; the mean of the log-odds is
    rule, best_HW = agreement([[0.7]], [[0.75], [0.25]], [True])
    odds = math.exp((2 - math.log(3)) / 2)
    torch.testing.assert_close(rule.probabilities(best_HW).flatten(), torch.tensor([1.0, odds]) / (1 + odds))


def test_absent_classes_are_never_chosen() -> None:
    rule, best_HW = agreement([[0.2], [1.0]], [[0.05], [0.05], [0.9]], [True, False])
    probabilities_CHW = rule.probabilities(best_HW)
    assert probabilities_CHW[2].item() == 0.0
    assert probabilities_CHW.sum().item() == pytest.approx(1.0)


def test_an_image_without_tags_is_background() -> None:
    rule, best_HW = agreement([[0.0, 0.0]], [[0.1, 0.5], [0.9, 0.5]], [False])
    assert rule.label(best_HW, torch.zeros(1, 2, dtype=torch.uint8)).tolist() == [[0, 0]]


def test_the_power_rule_sets_its_own_background_against_the_classes() -> None:
    scores_KHW = torch.tensor([[[0.01, 0.9]]])
    opinion_CHW = torch.full((2, 1, 2), 0.5)
    rule = Agreement(scores_KHW, torch.tensor([True]), opinion_CHW, PowerBackground(exponent=32), 0.1, 0.6)
    assert rule.label(scores_KHW[0], torch.zeros(1, 2, dtype=torch.uint8)).tolist() == [[0, 1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_a_certain_decoder_never_yields_nan_and_probabilities_sum_to_one(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_KHW = torch.rand(classes, 3, 4, generator=generator)
    present_K = torch.rand(classes, generator=generator) < 0.5
    opinion_CHW = torch.zeros(classes + 1, 3, 4)
    opinion_CHW[int(torch.randint(classes + 1, (), generator=generator))] = 1.0
    best_HW = (scores_KHW * present_K[:, None, None]).amax(dim=0)
    rule = Agreement(scores_KHW, present_K, opinion_CHW, BAND, 0.1, 0.6)
    torch.testing.assert_close(rule.probabilities(best_HW).sum(dim=0), torch.ones(3, 4))
    allowed = {0, IGNORE_INDEX, *(present_K.nonzero().flatten() + 1).tolist()}
    assert set(rule.label(best_HW, best_HW.byte()).unique().tolist()) <= allowed
