import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from wsss.evaluation.tagging import average_precision, tag_f1, tag_map

ranked = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=25)


def naive_precision(scores: list[int], present: list[bool]) -> float:
    """Average precision over the distinct scores, from high to low: each adds precision times gain in recall."""
    area = recall = 0.0
    for cut in sorted(set(scores), reverse=True):
        kept = [tag for score, tag in zip(scores, present, strict=True) if score >= cut]
        area += (sum(kept) / sum(present) - recall) * sum(kept) / len(kept)
        recall = sum(kept) / sum(present)
    return area


def test_three_images_by_hand() -> None:
    scores_NK = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    present_NK = np.array([[1, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(average_precision(scores_NK, present_NK), [(1 + 2 / 3) / 2, np.nan])
    assert tag_map(scores_NK, present_NK) == pytest.approx(5 / 6)  # the class without a positive is left out


def test_all_scores_equal_give_the_share_of_positives() -> None:
    assert tag_map(np.zeros((4, 1)), np.array([[1], [0], [0], [0]])) == 1 / 4


@settings(max_examples=60, deadline=None)
@given(ranked, st.randoms(use_true_random=False))
def test_parity_with_a_naive_loop_in_any_order(pairs: list[tuple[int, bool]], random: Any) -> None:
    random.shuffle(pairs)
    scores, present = [score for score, _ in pairs], [tag for _, tag in pairs]
    expected = naive_precision(scores, present) if any(present) else math.nan
    found = tag_map(np.array(scores)[:, None], np.array(present)[:, None])
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.fixture
def random_tags() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    present_NK = rng.random((60, 5)) < 0.3
    return np.round(0.5 * rng.random((60, 5)) + 0.4 * present_NK, 1).astype(np.float32), present_NK


def test_parity_with_torchmetrics(random_tags: tuple[NDArray[np.float32], NDArray[np.bool_]]) -> None:
    scores_NK, present_NK = map(torch.from_numpy, random_tags)
    precision = MultilabelAveragePrecision(num_labels=5, average="macro")(scores_NK, present_NK.int())
    assert tag_map(scores_NK, present_NK) == pytest.approx(float(precision), abs=1e-6)
    f1 = MultilabelF1Score(num_labels=5, average="micro", threshold=0.55)(scores_NK, present_NK.int())
    assert tag_f1(scores_NK, present_NK, threshold=0.55) == pytest.approx(float(f1), abs=1e-6)


def test_a_monotone_change_of_scale_changes_nothing(
    random_tags: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    scores_NK, present_NK = random_tags
    np.testing.assert_array_equal(
        average_precision(np.exp(3 * scores_NK), present_NK), average_precision(scores_NK, present_NK)
    )


def test_micro_f1_by_hand() -> None:
    scores_NK, present_NK = np.array([[0.9, 0.5], [0.6, 0.7]]), np.array([[1, 1], [0, 1]])
    assert tag_f1(scores_NK, present_NK) == pytest.approx(2 * 2 / (3 + 3))  # 0.5 does not exceed 0.5
    assert math.isnan(tag_f1(np.zeros((2, 2)), np.zeros((2, 2))))


def test_infinite_and_half_precision_logits_are_ranked() -> None:
    scores_NK = torch.tensor([[-torch.inf], [-torch.inf], [torch.inf]], dtype=torch.bfloat16)
    assert tag_map(scores_NK, torch.tensor([[False], [True], [True]])) == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize(("scores_NK", "message"), [(np.zeros((2, 3)), "expected"), (np.full((2, 2), np.nan), "NaN")])
def test_what_cannot_be_ranked_is_refused(scores_NK: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tag_map(scores_NK, np.ones((2, 2)))


def test_unknown_tags_take_no_part() -> None:
    scores, present, known = [[0.9], [0.8], [0.1]], [[0], [1], [0]], [[0], [1], [1]]
    assert tag_map(np.array(scores), np.array(present), np.array(known)) == 1.0
    assert tag_f1(np.array(scores), np.array(present), known_NK=np.array(known)) == 1.0
    assert tag_map(np.array(scores), np.array(present)) == 0.5
