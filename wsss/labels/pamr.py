"""Pixel-adaptive mask refinement (PAMR): class maps are smoothed between pixels of similar colour.

After "Single-stage semantic segmentation from image labels" (Araslanov and Roth, CVPR 2020). Every pixel
becomes the weighted mean of its neighbours, several times over; neighbours of its own colour weigh most. The
weights depend on the image alone, so they are computed once and used for all its maps.

Shape suffixes: B images, R maps of an image (in `PresentMaps` of all images), S slots, N neighbours, H rows, W columns.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.maps.present import PresentMaps

ITERATIONS = 10
DILATIONS = (1, 2, 4, 8, 12, 24)
CONTRAST = 0.1
"""Share of the local standard deviation that counts as one unit of colour difference."""

FLAT = 1e-8
"""Added to that unit, so that a neighbourhood of one colour does not divide by 0."""

IMAGES_AT_ONCE = {"cpu": 1}
"""Images refined together, by device type: one on a CPU, whose cache then holds its weights, else ``MANY_IMAGES``."""

MANY_IMAGES = 16


@torch.no_grad()
def pamr(
    images_B3HW: Tensor,
    maps: PresentMaps,
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> PresentMaps:
    """Refine class maps so that they follow the edges of the image.

    Args:
        images_B3HW: images in [0, 1].
        maps: class maps or scores of these images, at their size, in any range.
        iterations: how often each pixel becomes the weighted mean of its neighbours.
        dilations: distances, in pixels, of the rings of eight neighbours.

    Returns:
        maps at the same size, float32, within the range of each map. An image without a map takes no time.
    """

    def refine(some_B3HW: Tensor, packed_BSHW: Tensor) -> Tensor:
        affinity_BNHW = pamr_affinity(some_B3HW, dilations)
        return pamr_apply(affinity_BNHW, packed_BSHW, iterations=iterations, dilations=dilations)

    return few_at_once(images_B3HW, maps, refine)


def few_at_once(images_B3HW: Tensor, maps: PresentMaps, refine: Callable[[Tensor, Tensor], Tensor]) -> PresentMaps:
    """Refine the maps of a batch, so many images together as suits the device.

    Args:
        images_B3HW: images in [0, 1].
        maps: of these images, at their size.
        refine: gets some of the images and their maps (B, S, H, W), and returns maps of that shape.
    """
    size = IMAGES_AT_ONCE.get(images_B3HW.device.type, MANY_IMAGES)
    refined = [maps.values_Rhw[:0]]
    for start in range(0, len(images_B3HW), size):
        images = range(start, min(start + size, len(images_B3HW)))
        some = maps.select(images)
        if len(some.image_R) == 0:
            continue
        refined.append(some.unpack(refine(images_B3HW[start : images.stop], some.pack())).values_Rhw)
    return maps.with_values(refined[1] if len(refined) == 2 else torch.cat(refined).float())


@torch.no_grad()
def pamr_affinity(images_B3HW: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Weight of each neighbour of each pixel.

    ``softmax_n(-mean_channels |x_i - x_n| / (1e-8 + 0.1 std_i))`` over the eight neighbours at each dilation.
    ``std_i`` is the unbiased standard deviation, channel by channel, of the nine samples of every 3x3 window:
    with six dilations 54 samples, the pixel itself six times among them. Beyond the border the edge repeats.

    Args:
        images_B3HW: images in [0, 1].
        dilations: distances, in pixels, of the rings of neighbours.

    Returns:
        (B, N, H, W) float32 with N = 8 per dilation; the weights of a pixel sum to 1.
    """
    return negated_differences(images_B3HW, dilations).softmax(dim=1)


@torch.no_grad()
def negated_differences(images_B3HW: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """``-mean_channels |x_i - x_n| / (1e-8 + 0.1 std_i)``, what `pamr_affinity` takes the softmax of: (B, N, H, W)."""
    centre_B3HW = images_B3HW.float()
    padded = replicate(centre_B3HW, max(dilations))
    unit_B3HW = colour_unit(centre_B3HW, padded, dilations)
    per_unit_B3HW = unit_B3HW.mul_(centre_B3HW.shape[1]).reciprocal_()  # the mean over channels is in it
    batch, _, rows, columns = centre_B3HW.shape
    kernel_BNHW = centre_B3HW.new_zeros(batch, 8 * len(dilations), rows, columns)
    difference_B3HW = torch.empty_like(centre_B3HW)
    for n, neighbour_B3HW in enumerate(neighbours(padded, dilations)):
        torch.sub(neighbour_B3HW, centre_B3HW, out=difference_B3HW).abs_()
        for channel in range(centre_B3HW.shape[1]):
            kernel_BNHW[:, n].addcmul_(difference_B3HW[:, channel], per_unit_B3HW[:, channel], value=-1)
    return kernel_BNHW


@torch.no_grad()
def pamr_apply(
    affinity_BNHW: Tensor,
    maps_BRHW: Tensor,
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> Tensor:
    """Replace each pixel by the weighted mean of its neighbours, ``iterations`` times.

    Args:
        affinity_BNHW: from `pamr_affinity`, with the same dilations.
        maps_BRHW: any number of maps of each image.
        iterations: how often.
        dilations: distances, in pixels, of the rings of neighbours.

    Returns:
        (B, R, H, W) float32.
    """
    maps_BRHW = maps_BRHW.float()
    weights_N = affinity_BNHW.unsqueeze(2).unbind(dim=1)  # each (B, 1, H, W)
    for _ in range(iterations):
        padded = replicate(maps_BRHW, max(dilations))
        maps_BRHW = torch.zeros_like(maps_BRHW)
        for weight_B1HW, neighbour_BRHW in zip(weights_N, neighbours(padded, dilations), strict=True):
            maps_BRHW.addcmul_(weight_B1HW, neighbour_BRHW)
    return maps_BRHW


def colour_unit(centre_B3HW: Tensor, padded: Tensor, dilations: Sequence[int]) -> Tensor:
    """Colour difference that lowers a weight by a factor e: 1e-8 + 0.1 standard deviation, (B, 3, H, W).

    Moments are taken about the pixel itself, so that flat regions give exactly 0 in float32.
    """
    samples = 9 * len(dilations)
    first, second, difference = (torch.zeros_like(centre_B3HW) for _ in range(3))
    for neighbour_B3HW in neighbours(padded, dilations):
        torch.sub(neighbour_B3HW, centre_B3HW, out=difference)
        first.add_(difference)
        second.addcmul_(difference, difference)
    variance = second.addcmul_(first, first, value=-1 / samples).clamp_min_(0).div_(samples - 1)
    return variance.sqrt_().mul_(CONTRAST).add_(FLAT)


def replicate(maps_BRHW: Tensor, margin: int) -> Tensor:
    """Repeat the edge pixels ``margin`` times on all four sides."""
    return F.pad(maps_BRHW, (margin,) * 4, mode="replicate")


def neighbours(padded: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Views of a padded map, each shifted to one neighbour: eight directions at every dilation."""
    margin = max(dilations)
    rows, columns = padded.shape[-2] - 2 * margin, padded.shape[-1] - 2 * margin
    for dilation in dilations:
        for down, right in product((-dilation, 0, dilation), repeat=2):
            if (down, right) != (0, 0):
                top, left = margin + down, margin + right
                yield padded[..., top : top + rows, left : left + columns]
