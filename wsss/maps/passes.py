"""Group the images of a batch by their number of tags, and pick the r-th class of each image.

Both need the tags on the host: reading them from a device is a device synchronisation.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PASS_OVERHEAD = {"cpu": 50.0}
"""Fixed cost of one pass of a batch, by device type, in patches of compute."""

OTHER_OVERHEAD = 4096.0
"""The same on other devices: fewer patches do not fill a GPU."""


def one_class_an_image(present_BK: Tensor) -> Iterator[Tensor]:
    """Rounds of (B, K) bool: round r holds the r-th present class of each image, none where it has fewer."""
    rank_BK = present_BK.cumsum(dim=1)
    for number in range(1, int(rank_BK.max().item()) + 1 if rank_BK.numel() else 1):
        yield present_BK & (rank_BK == number)


def image_groups(images_B3HW: Tensor, present_BK: Tensor, stride: tuple[int, int]) -> list[Tensor]:
    """Indices, on the host, of the images of each group that should share one pass.

    Args:
        images_B3HW: on the device where they pass.
        present_BK: bool, on the host.
        stride: (rows, columns) of a patch.
    """
    patches = (images_B3HW.shape[2] / stride[0]) * (images_B3HW.shape[3] / stride[1])
    overhead = PASS_OVERHEAD.get(images_B3HW.device.type, OTHER_OVERHEAD) / patches
    return [torch.tensor(group) for group in tag_groups(present_BK.sum(dim=1).tolist(), overhead)]


def tag_groups(count_B: Sequence[int], overhead: float) -> list[list[int]]:
    """Images that should share a pass: sorted by number of tags and cut into groups of the least total cost.

    A group of n images with at most t tags costs (1 + t) (n + ``overhead``): a forward and t backwards, each of which
    takes as long as ``overhead`` images in addition to its own.
    """
    order = sorted(range(len(count_B)), key=count_B.__getitem__)
    cheapest: list[tuple[float, list[list[int]]]] = [(0.0, [])]
    for end in range(1, len(order) + 1):
        times = 1 + count_B[order[end - 1]]
        costs = [cost + times * (end - start + overhead) for start, (cost, _) in enumerate(cheapest)]
        start = min(range(end), key=costs.__getitem__)
        cheapest.append((costs[start], [*cheapest[start][1], order[start:end]]))
    return cheapest[-1][1]
