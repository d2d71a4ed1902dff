"""Class scores by hand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores, normalised


def test_scores_by_hand() -> None:
    maps_RHW = torch.tensor([[[-1.0, 2.0, 4.0]], [[0.0, -3.0, 0.0]]])
    assert normalised(maps_RHW).tolist() == [[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]]
    assert normalised(maps_RHW[:0]).shape == (0, 1, 3)


def test_values_of_absent_classes_do_not_leak() -> None:
    maps_BKHW = torch.tensor([[[[float("nan"), 1.0]], [[1.0, 2.0]]]])
    scores = normalise_scores(PresentMaps.from_dense(maps_BKHW, torch.tensor([[False, True]])))
    assert scores.dense().tolist() == [[[[0.0, 0.0]], [[0.5, 1.0]]]]


def test_a_batch_equals_its_images() -> None:
    maps_BKHW = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    maps = PresentMaps.from_dense(maps_BKHW, torch.tensor([[True, False], [True, True], [False, False]]))
    scores = normalise_scores(maps)
    for i in range(3):
        assert torch.equal(scores.of_image(i), normalise_scores(maps.select([i])).values_Rhw)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4))
def test_scores_lie_between_zero_and_one(values: list[float]) -> None:
    scores_RHW = normalised(torch.tensor(values).reshape(1, 2, 2))
    assert scores_RHW.max().item() == (1.0 if max(values) > 0 else 0.0)
    assert scores_RHW.min().item() >= 0.0


def test_half_precision_maps_give_float32_scores() -> None:
    scores_RHW = normalised(torch.tensor([[[1.0, 3.0]]], dtype=torch.bfloat16))
    assert scores_RHW.dtype == torch.float32
    assert torch.equal(scores_RHW, torch.tensor([[[1 / 3, 1.0]]]))
