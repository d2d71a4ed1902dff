"""Maps of present classes, stored ragged: by hand, and against dense maps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.maps.present import PresentMaps


def test_present_classes_move_up_by_hand() -> None:
    present_BK = torch.tensor([[False, True, False, True], [False, False, True, False]])
    maps_BKhw = torch.arange(8.0).reshape(2, 4, 1, 1) + 1
    maps = PresentMaps.from_dense(maps_BKhw, present_BK)
    assert maps.values_Rhw.flatten().tolist() == [2, 4, 7]
    assert maps.image_R.tolist() == [0, 0, 1]
    assert maps.class_R.tolist() == [1, 3, 2]
    assert maps.slots.tolist() == [0, 1, 0]
    assert maps.pack().flatten(1).tolist() == [[2, 4], [7, 0]]
    assert maps.taken.tolist() == [[True, True], [True, False]]
    assert maps.of_image(0).flatten().tolist() == [2, 4]
    assert maps.dense().flatten(1).tolist() == [[0, 2, 0, 4], [0, 0, 7, 0]]
    assert maps.unpack(10 * maps.pack()).values_Rhw.flatten().tolist() == [20, 40, 70]


@pytest.mark.parametrize("classes", [1, 3])
def test_images_without_tags(classes: int) -> None:
    absent_BK = torch.zeros(2, classes, dtype=torch.bool)
    maps = PresentMaps.from_dense(torch.ones(2, classes, 1, 2), absent_BK)
    assert maps.values_Rhw.shape == (0, 1, 2)
    assert maps.pack().tolist() == torch.zeros(2, 1, 1, 2).tolist()
    assert maps.taken.tolist() == [[False], [False]]
    assert maps.dense().tolist() == torch.zeros(2, classes, 1, 2).tolist()
    assert maps.of_image(1).shape == (0, 1, 2)
    assert maps.select([1]).num_images == 1
    assert maps.select([]).values_Rhw.shape == (0, 1, 2)


def test_parts_of_a_batch_are_gathered_in_its_order() -> None:
    present_BK = torch.tensor([[True, True], [False, False], [False, True], [True, False]])
    maps = PresentMaps.from_dense(torch.rand(4, 2, 2, 3), present_BK)
    images = [[1], [3, 2], [0]]
    back = PresentMaps.gathered([maps.select(some) for some in images], images)
    assert torch.equal(back.values_Rhw, maps.values_Rhw)
    assert torch.equal(back.present, present_BK)
    assert torch.equal(back.image_R, maps.image_R)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5))
def test_dense_and_packed_maps_keep_present_classes_and_nothing_else(seed: int, images: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    present_BK = torch.rand(images, classes, generator=generator) < 0.5
    maps_BKhw = torch.rand(images, classes, 2, 3, generator=generator)
    maps = PresentMaps.from_dense(maps_BKhw, present_BK)
    assert torch.equal(maps.dense(), maps_BKhw * present_BK[:, :, None, None])
    assert torch.equal(maps.unpack(maps.pack()).dense(), maps.dense())
    assert torch.equal(maps.present, present_BK)
    assert torch.equal(maps.counts, present_BK.sum(dim=1))
    some = torch.randperm(images, generator=generator)[: images - 1].tolist()
    assert torch.equal(maps.select(some).dense(), maps.dense()[some])
    for image in range(images):
        assert torch.equal(maps.of_image(image), maps_BKhw[image, present_BK[image]])
