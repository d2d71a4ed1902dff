"""The refiner: exactly PAMR at its start, by hand on three pixels, and within its range."""

import math

import pytest
import torch
from torch import Tensor

from wsss.config import LabelsSection
from wsss.labels.pamr import (
    DILATIONS,
    ITERATIONS,
    negated_differences,
    neighbours,
    pamr,
    pamr_affinity,
    pamr_apply,
    replicate,
)
from wsss.labels.recipe import follow_edges
from wsss.labels.refiner import Refiner
from wsss.maps.present import PresentMaps


def scene(rows: int = 19, columns: int = 26) -> tuple[Tensor, PresentMaps]:
    generator = torch.Generator().manual_seed(3)
    images_B3HW = torch.rand(2, 3, rows, columns, generator=generator)
    maps_BKHW = torch.rand(2, 2, rows, columns, generator=generator)
    return images_B3HW, PresentMaps.from_dense(maps_BKHW, torch.tensor([[True, False], [True, True]]))


def changed() -> Refiner:
    refiner, generator = Refiner(), torch.Generator().manual_seed(1)
    for parameter in refiner.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return refiner


def test_at_the_start_it_is_pamr_and_every_number_has_a_gradient() -> None:
    images_B3HW, maps = scene()
    refiner = Refiner()
    assert torch.equal(refiner.refine(images_B3HW, maps).values_Rhw, pamr(images_B3HW, maps).values_Rhw)
    packed_BSHW = maps.pack()
    refined_BSHW = refiner(negated_differences(images_B3HW), packed_BSHW, DILATIONS)
    exact_BSHW = pamr_apply(pamr_affinity(images_B3HW), packed_BSHW)
    assert (refined_BSHW - exact_BSHW).abs().max() < 2e-6
    (refined_BSHW * torch.rand_like(refined_BSHW)).sum().backward()
    for name, parameter in refiner.named_parameters():
        assert parameter.grad is not None
        # the first step is anchored where it starts: stay and anchor do the same there, and both are alive
        assert (parameter.grad != 0).all(), name
    assert sum(parameter.numel() for parameter in refiner.parameters()) == 32


def test_gradients_are_those_of_the_plain_sum() -> None:
    images_B3HW, maps = scene(7, 9)
    found = []
    for plain in (False, True):
        refiner, packed_BSHW = changed(), maps.pack().clone().requires_grad_()
        if plain:
            refined_BSHW = plainly(refiner, negated_differences(images_B3HW), packed_BSHW)
        else:
            refined_BSHW = refiner(negated_differences(images_B3HW), packed_BSHW, DILATIONS)
        (refined_BSHW**2).sum().backward()
        found.append([refined_BSHW.detach(), packed_BSHW.grad, *(one.grad for one in refiner.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def plainly(refiner: Refiner, differences_BNHW: Tensor, maps_BSHW: Tensor) -> Tensor:
    """The formula with every neighbour in memory at once."""
    ring_N = torch.arange(len(DILATIONS)).repeat_interleave(8)
    contrast_N11, bias_N11 = refiner.contrast.exp()[ring_N, None, None], refiner.bias[ring_N, None, None]
    weights_BNHW = (contrast_N11 * differences_BNHW + bias_N11).softmax(dim=1)
    first_BSHW = maps_BSHW
    for stay, anchor in zip(refiner.stay, refiner.anchor, strict=True):
        around = neighbours(replicate(maps_BSHW, max(DILATIONS)), DILATIONS)
        mean_BSHW = (weights_BNHW[:, None] * torch.stack([*around], dim=2)).sum(dim=2)
        moved_BSHW = mean_BSHW + stay * (maps_BSHW - mean_BSHW) + anchor * (first_BSHW - mean_BSHW)
        maps_BSHW = moved_BSHW.clamp(0, 1)
    return maps_BSHW


def test_three_pixels_by_hand() -> None:
    """Black, black, white in one row: all vertical and diagonal neighbours are the edge that repeats."""
    images_B3HW = torch.tensor([0.0, 0.0, 1.0]).expand(1, 3, 1, 3).contiguous()
    maps_BSHW = torch.tensor([[[[0.2, 0.6, 1.0]]]])
    refiner = Refiner(rings=1, steps=1)
    refiner.contrast.data.fill_(math.log(0.5))
    refiner.stay.data.fill_(0.25)
    refiner.anchor.data.fill_(0.125)
    # the middle pixel: 9 samples, of which 3 are white: standard deviation sqrt(9 * 1/3 * 2/3 / 8) = 0.5
    white = math.exp(-0.5 * 1 / (0.1 * 0.5))
    mean = (3 * 0.2 + 2 * 0.6 + 3 * white * 1.0) / (5 + 3 * white)
    refined = refiner(negated_differences(images_B3HW, (1,)), maps_BSHW, (1,))
    assert refined[0, 0, 0, 1].item() == pytest.approx(mean + 0.25 * (0.6 - mean) + 0.125 * (0.6 - mean), abs=1e-6)


def test_a_ring_with_a_low_bias_takes_no_part() -> None:
    images_B3HW, maps = scene()
    refiner = Refiner(rings=2, steps=3)
    refiner.bias.data[1] = -100
    alone = pamr_apply(negated_differences(images_B3HW, (1, 5))[:, :8].softmax(dim=1), maps.pack(), iterations=3,
                       dilations=(1,))  # fmt: skip
    refined = refiner.refine(images_B3HW, maps, (1, 5))
    torch.testing.assert_close(refined.values_Rhw, maps.unpack(alone).values_Rhw)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_maps_stay(value: float) -> None:
    images_B3HW, maps = scene()
    constant = maps.with_values(torch.full_like(maps.values_Rhw, value))
    torch.testing.assert_close(changed().refine(images_B3HW, constant).values_Rhw, constant.values_Rhw)


def test_maps_stay_in_range() -> None:
    images_B3HW, maps = scene()
    refiner = changed()
    refiner.stay.data.fill_(-3)
    refined_Rhw = refiner.refine(images_B3HW, maps).values_Rhw
    assert refined_Rhw.min() == 0
    assert refined_Rhw.max() == 1


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_in_the_recipe_at_every_stride(stride: int) -> None:
    images_B3HW, maps = scene()
    section = LabelsSection(pamr_stride=stride)
    assert section.pamr_iterations == ITERATIONS
    plain = follow_edges(images_B3HW, maps, section)
    assert torch.equal(follow_edges(images_B3HW, maps, section, Refiner()).values_Rhw, plain.values_Rhw)
    assert not torch.equal(follow_edges(images_B3HW, maps, section, changed()).values_Rhw, plain.values_Rhw)
