from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.labels.slots import Slots


def test_present_classes_move_up_by_hand() -> None:
    present_BK = torch.tensor([[False, True, False, True], [False, False, True, False]])
    maps_BKHW = torch.arange(8.0).reshape(2, 4, 1, 1) + 1
    slots = Slots.of(present_BK, torch.device("cpu"))
    packed_BSHW = slots.pack(maps_BKHW)
    assert packed_BSHW.flatten(1).tolist() == [[2, 4], [7, 0]]
    assert slots.taken_BS.tolist() == [[True, True], [True, False]]
    back_BKHW = torch.full((2, 4, 1, 1), -1.0)
    slots.unpack_(back_BKHW, 10 * packed_BSHW)
    assert back_BKHW.flatten(1).tolist() == [[-1, 20, -1, 40], [-1, -1, 70, -1]]


def test_images_without_tags_have_one_empty_slot() -> None:
    slots = Slots.of(torch.zeros(2, 3, dtype=torch.bool), torch.device("cpu"))
    assert slots.pack(torch.ones(2, 3, 1, 2)).tolist() == torch.zeros(2, 1, 1, 2).tolist()
    assert slots.taken_BS.tolist() == [[False], [False]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5))
def test_there_and_back_keeps_present_classes_and_nothing_else(seed: int, images: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    present_BK = torch.rand(images, classes, generator=generator) < 0.5
    maps_BKHW = torch.rand(images, classes, 2, 3, generator=generator)
    slots = Slots.of(present_BK, torch.device("cpu"))
    back_BKHW = torch.zeros_like(maps_BKHW)
    slots.unpack_(back_BKHW, slots.pack(maps_BKHW))
    assert torch.equal(back_BKHW, maps_BKHW * present_BK[:, :, None, None])
    assert torch.equal(slots.taken_BS.sum(dim=1), present_BK.sum(dim=1))
