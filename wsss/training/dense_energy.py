"""The dense CRF energy: neighbours in place and colour should belong to one class.

    E(S) = sum_c sum_ij S_i^c W_ij (1 - S_j^c)
    W_ij = exp(-|xy_i - xy_j|^2 / (2 sigma_xy^2) - |rgb_i - rgb_j|^2 / (2 sigma_rgb^2))

i = j is included (W_ii = 1): the quadratic form of the whole matrix W, one pair in N. The sum is divided
neither by the pixels nor by the pairs, so that the published weight of 1e-7 means the same here; it is
averaged over images. Tang, Perazzi, Djelouah, Ben Ayed, Schroers, Boykov: On Regularized Losses for
Weakly-supervised CNN Segmentation, 2018.

How W is applied without its N x N entries. W is a product of five Gaussians, one an axis (y, x, r, g, b), and
each of them is replaced by ``basis @ kernel @ basis.T`` of low rank:

- y and x: the leading eigenvectors of the Gaussian over the rows and over the columns. sigma_xy is large
  against the image, so ten products of them serve an image of two sigma a side. Their number grows with the
  area over sigma_xy squared.
- r, g, b: quadratic B-splines, three of which touch a colour, and the kernel that fits the Gaussian best in
  the least squares sense. A pixel is splatted to 27 cells of a colour grid, the grid is multiplied by the
  kernel along its three axes, and the pixel reads the same 27 cells again.

For a given number of products the time is linear in the pixels. W stays symmetric and positive semi-definite,
so the gradient W (1 - 2 S) is exact for the energy that is computed. Every shape follows from the image size
and the sigmas: nothing waits for the device.

Shape suffixes: B images, C classes with the background, H rows, W columns, N = H * W pixels, D channels
filtered together, T the 27 cells a pixel touches, R products of spatial eigenvectors, M nodes of a colour
axis.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

COLOUR_RANGE = 255.0
"""Images arrive in [0, 1]; sigma_rgb is in these units."""

CELLS_PER_SIGMA = 1.5
"""Colour cells a sigma_rgb: an axis errs by 1% of the peak at most, the energy of a flat image by 2%."""

SPATIAL_TOLERANCE = 3e-3
"""Products of spatial eigenvectors are left out below this share of the greatest eigenvalue."""

CHANNELS_AT_ONCE = 128
"""Channels of the colour grid held at a time; bounds the memory for many classes or large images."""


def dense_energy(
    images_B3HW: Tensor,
    probabilities_BCHW: Tensor,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
    valid_BHW: Tensor | None = None,
) -> Tensor:
    """Dense CRF energy of soft segmentations, without a look at each pair of pixels.

    Args:
        images_B3HW: images in [0, 1]; values outside are clamped. They receive no gradient.
        probabilities_BCHW: class probabilities in [0, 1], at the size of the images.
        sigma_rgb: reach in colour, in units of [0, 255].
        sigma_xy: reach in space, in pixels of the images as given.
        scale: images and probabilities are resized by this factor first, and sigma_xy with them.
        valid_BHW: bool, the region of interest; only pairs of valid pixels count. None: all pixels.

    Returns:
        Float32 scalar: the sum over all pairs of pixels, averaged over images.
    """
    with torch.autocast(images_B3HW.device.type, enabled=False):
        images, probabilities, valid = _resize(images_B3HW, probabilities_BCHW, valid_BHW, scale)
        energy: Tensor = _DenseEnergy.apply(probabilities, images, valid, sigma_rgb, sigma_xy * scale)
    return energy


def exact_dense_energy(
    images_B3HW: Tensor,
    probabilities_BCHW: Tensor,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
    valid_BHW: Tensor | None = None,
    rows_at_once: int = 1024,
) -> Tensor:
    """The same energy pair by pair, in time quadratic in the pixels: the definition, for small images.

    Arguments and result as for ``dense_energy``; autograd runs through it.
    """
    images, probabilities, valid = _resize(images_B3HW, probabilities_BCHW, valid_BHW, scale)
    height, width = images.shape[-2:]
    y_HW, x_HW = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    place_N2 = torch.stack([y_HW, x_HW], dim=-1).reshape(-1, 2).float() / (sigma_xy * scale)
    energy = probabilities.new_zeros(())
    for image_3HW, probability_CHW, valid_HW in zip(images, probabilities, valid, strict=True):
        features_N5 = torch.cat([place_N2, image_3HW.flatten(1).T / sigma_rgb], dim=1)
        soft_NC, weight_N1 = probability_CHW.flatten(1).T, valid_HW.reshape(-1, 1)
        for first in range(0, len(features_N5), rows_at_once):
            rows = slice(first, first + rows_at_once)
            difference = features_N5[rows][:, None] - features_N5[None]
            affinity = torch.exp(-0.5 * difference.square().sum(dim=-1))
            energy = energy + (weight_N1 * soft_NC)[rows].mul(affinity @ (weight_N1 * (1 - soft_NC))).sum()
    return energy / len(images)


def _resize(
    images_B3HW: Tensor, probabilities_BCHW: Tensor, valid_BHW: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Images in [0, 255], probabilities and validity (0 or 1), all float32 and resized by ``scale``.

    A resized pixel is valid where every pixel it is mixed from is.
    """
    height, width = images_B3HW.shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))

    def resize(values_BDHW: Tensor) -> Tensor:
        if size == (height, width):
            return values_BDHW.float()
        return F.interpolate(values_BDHW.float(), size=size, mode="bilinear", align_corners=False)

    images = resize(images_B3HW.detach()).clamp(0, 1) * COLOUR_RANGE
    if valid_BHW is None:
        valid = images.new_ones((len(images), *size))
    else:
        valid = (resize(valid_BHW[:, None])[:, 0] > 0.999).float()
    return images, resize(probabilities_BCHW), valid


class _DenseEnergy(torch.autograd.Function):
    """Energy and analytic gradient from one application of W: to the ones and to S, together."""

    @staticmethod
    def forward(
        ctx: Any,
        probabilities_BCHW: Tensor,
        images_B3HW: Tensor,
        valid_BHW: Tensor,
        sigma_rgb: float,
        sigma_xy: float,
    ) -> Tensor:
        energy = probabilities_BCHW.new_zeros(())
        gradient_BCHW = torch.empty_like(probabilities_BCHW)
        for index, (image_3HW, soft_CHW) in enumerate(zip(images_B3HW, probabilities_BCHW, strict=True)):
            valid_1HW = valid_BHW[index, None]
            values_DHW = torch.cat([valid_1HW, valid_1HW * soft_CHW])
            reach_DHW = apply_affinity(image_3HW, values_DHW, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)
            ones_1HW, same_CHW = reach_DHW[:1], reach_DHW[1:]
            energy = energy + (values_DHW[1:] * (ones_1HW - same_CHW)).sum()
            gradient_BCHW[index] = valid_1HW * (ones_1HW - 2 * same_CHW)
        ctx.save_for_backward(gradient_BCHW / len(images_B3HW))
        return energy / len(images_B3HW)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient_BCHW,) = ctx.saved_tensors
        return grad_output * gradient_BCHW, None, None, None, None


def apply_affinity(image_3HW: Tensor, values_DHW: Tensor, *, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """W times each channel: the sum over all pixels, weighted by how near they are in place and colour.

    Args:
        image_3HW: float32 in [0, 255].
        values_DHW: float32.
        sigma_rgb: reach in colour, in units of the image.
        sigma_xy: reach in space, in pixels.

    Returns:
        (D, H, W) float32.
    """
    channels, height, width = values_DHW.shape
    kernel_MM = _colour_kernel(sigma_rgb, image_3HW.device)
    cells_TN, weights_TN = _colour_cells(image_3HW.flatten(1), len(kernel_MM))
    values_ND = values_DHW.flatten(1).T.contiguous()  # the channels of a pixel side by side
    result_ND = torch.zeros_like(values_ND)
    modes = _spatial_modes(height, width, sigma_xy, image_3HW.device)
    for modes_NR in torch.split(modes, max(1, CHANNELS_AT_ONCE // channels), dim=1):
        spread_NRD = modes_NR[:, :, None] * values_ND[:, None, :]
        grid = _splat(spread_NRD.flatten(1), cells_TN, weights_TN, len(kernel_MM) ** 3)
        read_ND = _slice(_multiply_axes(grid, kernel_MM), cells_TN, weights_TN)
        result_ND += (read_ND.view_as(spread_NRD) * modes_NR[:, :, None]).sum(dim=1)
    return result_ND.T.reshape(values_DHW.shape)


def _splat(values_ND: Tensor, cells_TN: Tensor, weights_TN: Tensor, num_cells: int) -> Tensor:
    """Add each pixel to the cells it touches: (num_cells, D)."""
    grid = values_ND.new_zeros((num_cells, values_ND.shape[1]))
    for cells_N, weights_N in zip(cells_TN, weights_TN, strict=True):
        grid.index_add_(0, cells_N, values_ND * weights_N[:, None])
    return grid


def _slice(grid: Tensor, cells_TN: Tensor, weights_TN: Tensor) -> Tensor:
    """Read each pixel from the cells it touches, the transpose of ``_splat``: (N, D)."""
    return F.embedding_bag(cells_TN.T.contiguous(), grid, mode="sum", per_sample_weights=weights_TN.T.contiguous())


def _multiply_axes(grid: Tensor, kernel_MM: Tensor) -> Tensor:
    """Multiply the colour grid (M * M * M, D) by the kernel along r, g and b."""
    nodes, channels = len(kernel_MM), grid.shape[1]
    grid = kernel_MM @ grid.view(nodes, -1)
    grid = kernel_MM @ grid.view(nodes, nodes, -1)
    grid = kernel_MM @ grid.view(nodes * nodes, nodes, channels)
    return grid.reshape(-1, channels)


def _colour_cells(colours_3N: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The 27 cells each colour touches and its weights there, both (27, N); the weights sum to 1."""
    intervals = nodes - 2
    place_3N = colours_3N * (intervals / COLOUR_RANGE)
    first_3N = place_3N.floor().clamp(0, intervals - 1)
    weights_33N = _quadratic_splines(place_3N - first_3N)
    red_N, green_N, blue_N = first_3N.long()
    start_N = (red_N * nodes + green_N) * nodes + blue_N
    step_3 = torch.arange(3, device=colours_3N.device)
    step_T = ((step_3[:, None, None] * nodes + step_3[:, None]) * nodes + step_3).reshape(-1, 1)
    red_3N, green_3N, blue_3N = weights_33N.unbind(dim=1)
    weights = red_3N[:, None, None] * green_3N[:, None] * blue_3N
    return start_N + step_T, weights.flatten(0, 2)


def _quadratic_splines(t: Tensor) -> Tensor:
    """The three quadratic B-splines at t in [0, 1] of an interval, stacked in front."""
    return torch.stack([0.5 * (1 - t) ** 2, 0.5 + t * (1 - t), 0.5 * t**2])


@lru_cache(maxsize=8)
def _colour_kernel(sigma_rgb: float, device: torch.device) -> Tensor:
    """(M, M): the kernel between spline nodes that comes nearest to the Gaussian of colours."""
    intervals = max(1, int(np.ceil(CELLS_PER_SIGMA * COLOUR_RANGE / sigma_rgb)))
    colours = np.linspace(0.0, COLOUR_RANGE, 16 * intervals + 1)
    place = colours * (intervals / COLOUR_RANGE)
    first = np.minimum(place.astype(np.int64), intervals - 1)
    basis = np.zeros((len(colours), intervals + 2))
    weights = _quadratic_splines(torch.from_numpy(place - first)).numpy().T
    np.put_along_axis(basis, first[:, None] + np.arange(3), weights, axis=1)
    fit = np.linalg.pinv(basis)
    return torch.from_numpy(fit @ _gaussian(colours, sigma_rgb) @ fit.T).float().to(device)


@lru_cache(maxsize=32)
def _spatial_modes(height: int, width: int, sigma_xy: float, device: torch.device) -> Tensor:
    """(N, R): products of eigenvectors whose ``modes @ modes.T`` is the spatial Gaussian."""
    rows, columns = _modes(height, sigma_xy), _modes(width, sigma_xy)
    size = np.square(rows).sum(axis=0)[:, None] * np.square(columns).sum(axis=0)
    row, column = np.nonzero(size >= SPATIAL_TOLERANCE * size.max())
    modes = rows[:, None, row] * columns[None, :, column]
    return torch.from_numpy(modes.reshape(height * width, -1)).float().to(device)


def _modes(length: int, sigma: float) -> NDArray[np.float64]:
    """Eigenvectors of the Gaussian over ``length`` pixels, times the roots of their eigenvalues."""
    values, vectors = np.linalg.eigh(_gaussian(np.arange(length, dtype=np.float64), sigma))
    modes: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0))
    return modes


def _gaussian(places: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """exp(-(a - b)^2 / (2 sigma^2)) for every pair of places."""
    affinity: NDArray[np.float64] = np.exp(-0.5 * np.square((places[:, None] - places) / sigma))
    return affinity
