"""Groups of images by number of tags and the rounds of their backwards: by hand, and against all other groupings."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.maps.passes import image_groups, one_class_an_image, tag_groups


def test_rounds_by_hand() -> None:
    present_BK = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    first_BK, second_BK = one_class_an_image(present_BK)
    assert first_BK.tolist() == [[True, False, False], [False, True, False], [False] * 3]
    assert second_BK.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert not list(one_class_an_image(torch.zeros(2, 3, dtype=torch.bool)))
    assert not list(one_class_an_image(torch.zeros(2, 0, dtype=torch.bool)))


def test_large_images_are_grouped_by_tags_and_small_ones_together() -> None:
    """The overhead of a pass is 50 patches on a CPU, and many more on a device that few patches leave idle."""
    present_BK = torch.tensor([[1, 1], [1, 0], [0, 1]], dtype=torch.bool)
    large, small = torch.empty(3, 3, 160, 160), torch.empty(3, 3, 16, 8)
    assert [group.tolist() for group in image_groups(large, present_BK, (8, 8))] == [[1, 2], [0]]
    assert [group.tolist() for group in image_groups(small, present_BK, (8, 8))] == [[1, 2, 0]]
    assert [group.tolist() for group in image_groups(large.to("meta"), present_BK, (8, 8))] == [[1, 2, 0]]


def cost(counts: list[int], groups: list[list[int]], overhead: float) -> float:
    return sum((1 + max(counts[i] for i in group)) * (len(group) + overhead) for group in groups)


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for i, group in enumerate(smaller):
            yield [*smaller[:i], [first, *group], *smaller[i + 1 :]]


def test_groups_by_hand() -> None:
    assert tag_groups([2, 1, 2, 1, 1], overhead=0.1) == [[1, 3, 4], [0, 2]]
    assert tag_groups([2, 1, 2, 1, 1], overhead=10.0) == [[1, 3, 4, 0, 2]]
    assert tag_groups([1, 1, 1, 1, 2, 6], overhead=1.0) == [[0, 1, 2, 3], [4], [5]]  # 10 + 6 + 14
    assert tag_groups([1, 1, 1, 1, 2, 6], overhead=1.5) == [[0, 1, 2, 3], [4, 5]]  # 11 + 24.5


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=6), overhead=st.floats(0.01, 20))
def test_no_other_groups_are_cheaper(counts: list[int], overhead: float) -> None:
    groups = tag_groups(counts, overhead)
    assert sorted(i for group in groups for i in group) == list(range(len(counts)))
    least = min(cost(counts, other, overhead) for other in partitions(list(range(len(counts)))))
    assert cost(counts, groups, overhead) == pytest.approx(least)
