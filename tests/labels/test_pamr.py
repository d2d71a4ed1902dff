"""PAMR against a per-pixel version of the formula."""

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.labels.pamr import pamr as refine_present
from wsss.labels.pamr import pamr_affinity, pamr_apply
from wsss.maps.present import PresentMaps

RING = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def pamr(images_B3HW: Tensor, maps_BKHW: Tensor, present_BK: Tensor | None = None, **settings: Any) -> Tensor:
    """Of dense maps; (B, K, H, W), absent classes 0."""
    if present_BK is None:
        present_BK = torch.ones(maps_BKHW.shape[:2], dtype=torch.bool)
    return refine_present(images_B3HW, PresentMaps.from_dense(maps_BKHW, present_BK), **settings).dense()


def random_batch(batch: int, classes: int, rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 3, rows, columns, generator=generator)
    return images, torch.rand(batch, classes, rows, columns, generator=generator)


def slow_weights(image_3HW: Tensor, row: int, column: int, dilations: tuple[int, ...]) -> dict[tuple[int, int], float]:
    """Weight of each neighbour, keyed by (offset down, offset right), in plain Python floats."""
    _, rows, columns = image_3HW.shape

    def colour(down: int, right: int) -> list[float]:
        y = min(max(row + down, 0), rows - 1)
        x = min(max(column + right, 0), columns - 1)
        return image_3HW[:, y, x].tolist()

    offsets = [(d * down, d * right) for d in dilations for down, right in RING]
    samples = [colour(*offset) for offset in offsets] + [colour(0, 0)] * len(dilations)
    std = [statistics.stdev(sample[channel] for sample in samples) for channel in range(3)]
    centre = colour(0, 0)
    exponentials = {}
    for offset in offsets:
        units = [abs(a - b) / (1e-8 + 0.1 * s) for a, b, s in zip(centre, colour(*offset), std, strict=True)]
        exponentials[offset] = math.exp(-sum(units) / 3)
    total = sum(exponentials.values())
    return {offset: value / total for offset, value in exponentials.items()}


def slow_pamr(image_3HW: Tensor, map_HW: Tensor, iterations: int, dilations: tuple[int, ...]) -> Tensor:
    rows, columns = map_HW.shape
    for _ in range(iterations):
        refined_HW = torch.zeros(rows, columns, dtype=torch.float64)
        for row in range(rows):
            for column in range(columns):
                for (down, right), weight in slow_weights(image_3HW, row, column, dilations).items():
                    y = min(max(row + down, 0), rows - 1)
                    x = min(max(column + right, 0), columns - 1)
                    refined_HW[row, column] += weight * map_HW[y, x].item()
        map_HW = refined_HW
    return map_HW.float()


@pytest.mark.parametrize(("rows", "columns"), [(5, 9), (7, 3), (1, 4)])
@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4), (1, 12)])
def test_equals_the_formula_pixel_by_pixel(rows: int, columns: int, dilations: tuple[int, ...]) -> None:
    images, maps = random_batch(2, 2, rows, columns)
    refined = pamr(images, maps, iterations=2, dilations=dilations)
    for b in range(2):
        for k in range(2):
            expected = slow_pamr(images[b], maps[b, k], 2, dilations)
            torch.testing.assert_close(refined[b, k], expected, rtol=1e-5, atol=1e-6)


def test_default_dilations_reach_beyond_a_small_image() -> None:
    images, maps = random_batch(1, 1, 6, 8)
    expected = slow_pamr(images[0], maps[0, 0], 1, (1, 2, 4, 8, 12, 24))
    torch.testing.assert_close(pamr(images, maps, iterations=1)[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_black_pixel_beside_white_by_hand() -> None:
    """Three white among nine samples: the standard deviation is 0.5, so white weighs e^-20."""
    images = torch.zeros(1, 3, 3, 3)
    images[..., 2] = 1.0
    maps = torch.zeros(1, 1, 3, 3)
    maps[..., 2] = 1.0
    weights = pamr_affinity(images, (1,))[0, :, 1, 1]
    white = math.exp(-20) / (5 + 3 * math.exp(-20))
    assert weights[[2, 4, 7]].tolist() == pytest.approx([white] * 3, rel=1e-4)
    refined = pamr(images, maps, iterations=1, dilations=(1,))
    assert refined[0, 0, 1, 1].item() == pytest.approx(3 * white, rel=1e-4)


def test_flat_image_averages_the_neighbours() -> None:
    images = torch.full((1, 3, 3, 3), 0.3)
    maps = torch.arange(9.0).reshape(1, 1, 3, 3)
    refined = pamr(images, maps, iterations=1, dilations=(1,))
    assert refined[0, 0, 1, 1].item() == pytest.approx((36 - 4) / 8)
    assert refined[0, 0, 0, 0].item() == pytest.approx((0 + 0 + 1 + 0 + 1 + 3 + 3 + 4) / 8)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    levels=st.sampled_from([1, 2, 255]),
    seed=st.integers(0, 99),
)
def test_weights_sum_to_one_and_maps_stay_in_range(rows: int, columns: int, levels: int, seed: int) -> None:
    images, maps = random_batch(1, 2, rows, columns, seed)
    images = (images * levels).round() / levels
    weights = pamr_affinity(images)
    assert weights.shape == (1, 48, rows, columns)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(1, rows, columns))
    constant = pamr(images, torch.full_like(maps, 0.7))
    torch.testing.assert_close(constant, torch.full_like(maps, 0.7))
    refined = pamr(images, maps)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    assert (refined >= low - 1e-5).all()
    assert (refined <= high + 1e-5).all()


def test_absent_classes_are_zero_and_present_ones_unmoved() -> None:
    images, maps = random_batch(3, 4, 6, 5)
    present = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    maps_with_rubbish = maps.masked_fill(~present[..., None, None], float("nan"))
    refined = pamr(images, maps_with_rubbish, present)
    assert (refined[~present] == 0).all()
    torch.testing.assert_close(refined[present], pamr(images, maps)[present])


def test_images_refined_together_equal_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images, maps = random_batch(5, 3, 6, 7)
    present = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    one_by_one = pamr(images, maps, present)
    monkeypatch.setattr("wsss.labels.pamr.IMAGES_AT_ONCE", {"cpu": 3})
    torch.testing.assert_close(pamr(images, maps, present), one_by_one)


def test_affinity_serves_many_maps() -> None:
    images, maps = random_batch(2, 3, 6, 7)
    affinity = pamr_affinity(images, (1, 3))
    refined = pamr_apply(affinity, maps, iterations=4, dilations=(1, 3))
    torch.testing.assert_close(refined, pamr(images, maps, iterations=4, dilations=(1, 3)))


def test_float32_without_a_graph_under_autocast() -> None:
    images, maps = random_batch(1, 1, 6, 7)
    expected = pamr(images, maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = pamr(images.requires_grad_(), maps.requires_grad_())
    assert refined.dtype == torch.float32
    assert not refined.requires_grad
    assert torch.equal(refined, expected)
    assert pamr(images, maps.to(torch.bfloat16)).dtype == torch.float32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    images, maps = random_batch(3, 4, 20, 31)
    present = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    on_cuda = pamr(images.cuda(), maps.cuda(), present.cuda())
    torch.testing.assert_close(on_cuda.cpu(), pamr(images, maps, present), rtol=1e-4, atol=1e-5)
