"""Class scores by hand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.maps.scores import normalise_scores


def test_scores_by_hand() -> None:
    maps_KHW = torch.tensor([[[-1.0, 2.0, 4.0]], [[5.0, 5.0, 5.0]], [[0.0, -3.0, 0.0]]])
    scores_KHW = normalise_scores(maps_KHW, torch.tensor([True, False, True]))
    assert scores_KHW.tolist() == [[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]


def test_absent_rubbish_does_not_leak() -> None:
    maps_KHW = torch.tensor([[[float("nan"), 1.0]], [[1.0, 2.0]]])
    scores_KHW = normalise_scores(maps_KHW, torch.tensor([False, True]))
    assert scores_KHW.tolist() == [[[0.0, 0.0]], [[0.5, 1.0]]]


def test_a_batch_equals_its_images() -> None:
    maps_BKHW = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    present_BK = torch.tensor([[True, False], [True, True], [False, False]])
    scores_BKHW = normalise_scores(maps_BKHW, present_BK)
    for maps_KHW, present_K, scores_KHW in zip(maps_BKHW, present_BK, scores_BKHW, strict=True):
        assert torch.equal(scores_KHW, normalise_scores(maps_KHW, present_K))


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4))
def test_scores_lie_between_zero_and_one(values: list[float]) -> None:
    maps_KHW = torch.tensor(values).reshape(1, 2, 2)
    scores_KHW = normalise_scores(maps_KHW, torch.tensor([True]))
    assert scores_KHW.max().item() == (1.0 if max(values) > 0 else 0.0)
    assert scores_KHW.min().item() >= 0.0


def test_half_precision_maps_give_float32_scores() -> None:
    scores_KHW = normalise_scores(torch.tensor([[[1.0, 3.0]]], dtype=torch.bfloat16), torch.tensor([True]))
    assert scores_KHW.dtype == torch.float32
    assert torch.equal(scores_KHW, torch.tensor([[[1 / 3, 1.0]]]))
