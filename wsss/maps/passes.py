"""Which images pass together, and whose turn it is in each of their backwards.

Tags alone decide it, so tags are wanted on the host: a host that asks a device for them waits for all the device has
been given to do.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PASS_OVERHEAD = {"cpu": 50.0}
"""A pass of a batch of any size takes as long as so many more patches would add to it."""

OTHER_OVERHEAD = 4096.0
"""The same on other devices: fewer patches leave a GPU idle."""


def one_class_an_image(present_BK: Tensor) -> Iterator[Tensor]:
    """Rounds of (B, K) bool: in round r each image has its r-th present class, or none left."""
    rank_BK = present_BK.cumsum(dim=1)
    for number in range(1, int(rank_BK.max().item()) + 1 if rank_BK.numel() else 1):
        yield present_BK & (rank_BK == number)


def image_groups(images_B3HW: Tensor, present_BK: Tensor, stride: tuple[int, int]) -> list[Tensor]:
    """Indices, on the host, of the images of each group that should pass together.

    Args:
        images_B3HW: on the device where they pass.
        present_BK: bool, on the host.
        stride: (rows, columns) of a patch.
    """
    patches = (images_B3HW.shape[2] / stride[0]) * (images_B3HW.shape[3] / stride[1])
    overhead = PASS_OVERHEAD.get(images_B3HW.device.type, OTHER_OVERHEAD) / patches
    return [torch.tensor(group) for group in tag_groups(present_BK.sum(dim=1).tolist(), overhead)]


def tag_groups(count_B: Sequence[int], overhead: float) -> list[list[int]]:
    """Images that should pass together, by number of tags: the cheapest cuts of the images in that order.

    A group of n images with at most t tags costs (1 + t) (n + ``overhead``): a forward and t backwards, each of which
    takes as long as so many more images would add.
    """
    order = sorted(range(len(count_B)), key=count_B.__getitem__)
    cheapest: list[tuple[float, list[list[int]]]] = [(0.0, [])]
    for end in range(1, len(order) + 1):
        times = 1 + count_B[order[end - 1]]
        costs = [cost + times * (end - start + overhead) for start, (cost, _) in enumerate(cheapest)]
        start = min(range(end), key=costs.__getitem__)
        cheapest.append((costs[start], [*cheapest[start][1], order[start:end]]))
    return cheapest[-1][1]
