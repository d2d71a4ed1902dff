"""Upsampling in bands of rows against ``F.interpolate``, labels against its argmax, three pixels by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsss.labels.bands import labels_from_grid, pair_probabilities, probabilities_at, upsampled_bands

SIDES = st.integers(1, 40)


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() * leaf.element_size() / 4 for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *map(int, sizes)])
        return result


def plain(grid_Chw: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(grid_Chw[None], size=size, mode="bilinear", align_corners=False)[0]


def joined(grid_Chw: Tensor, size: tuple[int, int], max_values: int) -> Tensor:
    bands = list(upsampled_bands(grid_Chw, size, max_values=max_values))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    assert bands[-1][0].stop == size[0]
    return torch.cat([band for _, band in bands], dim=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 200, 2**23]))
def test_bands_are_those_of_interpolate(
    seed: int, channels: int, points: int, width: int, height: int, columns: int, max_values: int
) -> None:
    grid_Chw = torch.rand(channels, points, width, generator=torch.Generator().manual_seed(seed))
    ours = joined(grid_Chw, (height, columns), max_values)
    torch.testing.assert_close(ours, plain(grid_Chw, (height, columns)), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("points", "pixels"), [(512, 8000), (997, 7919), (4000, 1000), (640, 641)])
def test_long_axes_lose_no_precision(points: int, pixels: int) -> None:
    """Float32 coordinates in the thousands leave few bits for the weights; they must be rounded as torch does."""
    grid_Chw = torch.rand(1, points, 5, generator=torch.Generator().manual_seed(0))
    for grid, size in ((grid_Chw, (pixels, 5)), (grid_Chw.mT.contiguous(), (5, pixels))):
        torch.testing.assert_close(joined(grid, size, 2**16), plain(grid, size), atol=1e-6, rtol=0)


def test_the_size_of_the_grid_changes_no_bit() -> None:
    grid_Chw = torch.randn(3, 7, 9)
    assert torch.equal(joined(grid_Chw, (7, 9), 40), grid_Chw)
    assert torch.equal(joined(grid_Chw, (7, 9), 2**23), grid_Chw)


def test_half_precision_becomes_float32() -> None:
    grid_Chw = torch.rand(2, 3, 4).to(torch.bfloat16)
    ours = joined(grid_Chw, (6, 9), 2**10)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain(grid_Chw.float(), (6, 9)))


def test_three_pixels_by_hand() -> None:
    """Two grid points become four pixels: 3/4 and 1/4 of each between them."""
    grid_Chw = torch.tensor([[[0.0, 4.0]], [[3.0, 0.0]], [[1.5, 1.5]]])
    assert joined(grid_Chw, (1, 4), 100)[0].tolist() == [[0, 1, 3, 4]]
    assert labels_from_grid(grid_Chw, (1, 4)).tolist() == [[1, 1, 0, 0]]
    assert labels_from_grid(torch.zeros(3, 1, 2), (2, 4)).tolist() == [[0] * 4] * 2  # equal: the first


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), SIDES, SIDES, SIDES, SIDES, st.sampled_from([0.0, 1.0, 30.0]))
def test_labels_are_the_argmax(
    seed: int, channels: int, points: int, width: int, height: int, columns: int, spread: float
) -> None:
    """Where the two largest are not equal up to rounding; ``spread`` 0 makes every channel equal."""
    generator = torch.Generator().manual_seed(seed)
    log_Chw = (spread * torch.randn(channels, points, width, generator=generator)).log_softmax(dim=0)
    label_HW = labels_from_grid(log_Chw, (height, columns), max_values=300)
    assert label_HW.dtype == torch.uint8
    value_CHW = plain(log_Chw, (height, columns))
    chosen_HW = value_CHW.gather(0, label_HW.long()[None])[0]
    torch.testing.assert_close(chosen_HW, value_CHW.amax(dim=0), atol=2e-5, rtol=1e-6)


def test_labels_on_the_grid_are_its_argmax() -> None:
    log_Chw = torch.randn(5, 30, 20).log_softmax(dim=0)
    assert torch.equal(labels_from_grid(log_Chw, (30, 20)), log_Chw.argmax(dim=0).to(torch.uint8))


def test_probabilities_are_the_softmax_over_all_channels() -> None:
    torch.manual_seed(0)
    log_Chw = (4 * torch.randn(6, 5, 7)).log_softmax(dim=0)
    expected_CHW = plain(log_Chw, (33, 18)).softmax(dim=0)
    torch.testing.assert_close(probabilities_at(log_Chw, (33, 18), max_values=500), expected_CHW)
    torch.testing.assert_close(probabilities_at(log_Chw, (33, 18), [4, 0]), expected_CHW[[4, 0]])
    assert probabilities_at(log_Chw, (33, 18), []).shape == (0, 33, 18)


def test_probabilities_of_pairs_are_those_of_each_image() -> None:
    torch.manual_seed(0)
    log_BChw = (4 * torch.randn(3, 4, 5, 7)).log_softmax(dim=1)
    image_R, channel_R = torch.tensor([0, 0, 2]), torch.tensor([0, 3, 1])
    kept_RHW = pair_probabilities(log_BChw, (11, 9), image_R, channel_R, max_values=400)
    for map_HW, image, channel in zip(kept_RHW, [0, 0, 2], [0, 3, 1], strict=True):
        torch.testing.assert_close(map_HW, probabilities_at(log_BChw[image], (11, 9), [channel])[0])


def test_no_tensor_is_larger_than_a_band() -> None:
    """Nor larger than the label map; 21 classes at 400 x 300 would be 2.5 million values."""
    torch.manual_seed(0)
    log_Chw = torch.randn(21, 20, 15).log_softmax(dim=0)
    with Largest() as largest:
        labels_from_grid(log_Chw, (400, 300), max_values=2**16)
    assert largest.elements <= 2**16
    with Largest() as largest:
        for _ in upsampled_bands(log_Chw, (400, 300), max_values=2**16):
            pass
    assert largest.elements <= 2**16
    with Largest() as largest:
        probabilities_at(log_Chw, (400, 300), [0], max_values=2**16)
    assert largest.elements <= max(2**16, 400 * 300)
