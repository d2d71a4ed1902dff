"""The object of an image without tags: the cut of a small graph by hand, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.maps.bipartition import object_side

AXES = torch.eye(4)


def keys(*which: int) -> torch.Tensor:
    """(1, M, 4): each patch looks along one axis, the longer the later."""
    return torch.stack([AXES[axis] * (1 + number) for number, axis in enumerate(which)])[None]


def test_two_kinds_of_patches_are_two_sides() -> None:
    key_1MC = keys(0, 0, 1, 1, 0)
    assert object_side(key_1MC, torch.tensor([[0.0, 0.1, 0.9, 0.5, 0.0]])).tolist() == [[0, 0, 1, 1, 0]]
    assert object_side(key_1MC, torch.tensor([[0.9, 0.8, 0.1, 0.1, 0.8]])).tolist() == [[1, 1, 0, 0, 1]]


def test_each_image_is_cut_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    key_BMC, attention_BM = torch.randn(3, 30, 6, generator=rng), torch.rand(3, 30, generator=rng)
    together = object_side(key_BMC, attention_BM)
    alone = [object_side(key_BMC[i : i + 1], attention_BM[i : i + 1]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=4, max_size=20), st.integers(0, 1000))
def test_the_order_of_the_patches_does_not_matter(kinds: list[int], seed: int) -> None:
    kinds = [0, 1, *kinds]
    attention_1M = torch.tensor([[0.2 + 0.6 * kind for kind in kinds]])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(kinds)))
    side_1M = object_side(keys(*kinds), attention_1M)
    assert side_1M[0].tolist() == kinds
    assert torch.equal(object_side(keys(*kinds)[:, order], attention_1M[:, order]), side_1M[:, order])


@pytest.mark.parametrize("patches", [1, 2, 3])
def test_small_and_even_images_give_finite_sides(patches: int) -> None:
    side_1M = object_side(torch.ones(1, patches, 3), torch.ones(1, patches))
    assert side_1M.shape == (1, patches)
    assert set(side_1M.unique().tolist()) <= {0.0, 1.0}
