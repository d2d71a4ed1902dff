"""Windows of large pictures: they cover the axis, and their weights sum to 1."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.windows import Windows, is_large


@given(length=st.integers(1, 400), side=st.integers(1, 120))
@settings(max_examples=100, deadline=None)
def test_the_weights_of_each_pixel_sum_to_one(length: int, side: int) -> None:
    windows = Windows.of(length, side)
    total = torch.zeros(length)
    for start, weight_T in zip(windows.starts, windows.weights(), strict=True):
        assert 0 <= start <= length - windows.side
        assert weight_T.shape == (windows.side,)
        assert weight_T.min() > 0
        assert weight_T.max() <= 1
        total[start : start + windows.side] += weight_T
    assert windows.starts[0] == 0
    assert windows.starts[-1] == length - windows.side
    torch.testing.assert_close(total, torch.ones(length))


@given(length=st.integers(100, 4000), side=st.integers(30, 90))
@settings(max_examples=50, deadline=None)
def test_neighbours_overlap_by_a_third_and_weights_change_slowly(length: int, side: int) -> None:
    windows = Windows.of(length, side)
    steps = torch.tensor(windows.starts).diff()
    assert int(steps.max()) <= side - round(side / 3) + 1
    assert int(steps.min()) > 0
    for weight_T in windows.weights():
        assert float(weight_T.diff().abs().max()) < 6 / side


def test_a_picture_of_the_area_of_a_window_is_whole() -> None:
    assert not is_large((100, 100), 100)
    assert is_large((100, 101), 100)
    assert Windows.of(50, 100) == Windows(50, 50, (0,))
