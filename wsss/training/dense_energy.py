"""The dense CRF energy: neighbours in place and colour should belong to one class.

    E(S) = sum_c sum_ij S_i^c W_ij (1 - S_j^c)
    W_ij = exp(-|xy_i - xy_j|^2 / (2 sigma_xy^2) - |rgb_i - rgb_j|^2 / (2 sigma_rgb^2))

i = j is included (W_ii = 1): the quadratic form of the whole matrix W, one pair in N. The sum is divided
neither by the pixels nor by the pairs, so that the published weight of 1e-7 means the same here; it is
averaged over images. Tang, Perazzi, Djelouah, Ben Ayed, Schroers, Boykov: On Regularized Losses for
Weakly-supervised CNN Segmentation, 2018.

W has N x N entries, which are never formed. It is a product of five Gaussians, one for each axis (y, x, r, g, b),
and each of them is replaced by ``basis @ kernel @ basis.T`` of low rank:

- y and x: the leading eigenvectors of the Gaussian over the rows and over the columns. sigma_xy is large
  against the image, so six products of them serve an image of two sigma a side. Their number grows with the
  area over sigma_xy squared.
- r, g, b: a colour has weights on three nodes of an axis, and a kernel connects the nodes. Both are fitted to the
  Gaussian in turn by least squares, starting from quadratic B-splines; the weights are scaled so that the affinity
  of a colour to itself is one. A pixel is added to 27 cells of a colour grid with these weights, the grid is
  multiplied by the kernel along its three axes, and the pixel reads the same 27 cells with the same weights. The
  (pixel, cell) pairs are sorted by cell, so that each cell sums a contiguous range.

The cost does not grow with the number of classes. W 1 is shared by all classes; W S_c is computed for at most
OWN_CLASSES channels of an image. Where there are more classes, those of least mass in the image are replaced by
their mean. The energy computed in this way is never less than the true one, and exceeds it by at most
sum_c sum_ij S_i^c W_ij S_j^c over these classes: almost 0 where they are not in the image, 0 where their maps are
equal, 3% where blobs of eighty classes fill the image.

For a given number of products the time is linear in the pixels. W stays symmetric and positive semi-definite,
so the gradient W (1 - 2 S) is exact for the energy that is computed. Every shape follows from the image size,
the sigmas and the number of classes, so the device is never synchronised.

Shape suffixes: B images, C classes with the background, H rows, W columns, N = H * W pixels, D channels
filtered together, T the 27 cells of a pixel, R products of spatial eigenvectors, M nodes and L levels of a
colour axis.
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

CELLS_PER_SIGMA = 1.1
"""Colour cells in one sigma_rgb: the error on an axis is at most 2.5% of the peak, and zero at the peak."""

LEVELS_PER_CELL = 64
"""Levels in a cell to which colours are rounded; finer than those of 8-bit images for the usual sigma_rgb."""

COLOUR_FITS = 4
"""Times that the kernel of a colour axis and the weights of its levels are fitted in turn."""

SPATIAL_TOLERANCE = 1.5e-2
"""Products of spatial eigenvectors are left out below this share of the greatest eigenvalue."""

OWN_CLASSES = 24
"""Classes of an image that are filtered, one of them the mean of those of least mass where there are more."""

CHANNELS_ON_CPU, CHANNELS_ON_GPU = 64, 512
"""Channels of the colour grid held at a time: on a CPU few enough for its caches, on a GPU enough to fill it."""


def dense_energy(
    images_B3HW: Tensor,
    probabilities_BCHW: Tensor,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
    valid_BHW: Tensor | None = None,
) -> Tensor:
    """Dense CRF energy of soft segmentations, in time linear in the pixels.

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

    A resized pixel is valid where every pixel that it interpolates is valid.
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
            soft_CHW = valid_1HW * soft_CHW
            own_DHW, slot_C = _own_classes(soft_CHW)
            values_DHW = torch.cat([valid_1HW, own_DHW])
            reach_DHW = apply_affinity(image_3HW, values_DHW, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)
            ones_1HW, same_CHW = reach_DHW[:1], reach_DHW[1:][slot_C]
            energy = energy + (soft_CHW * (ones_1HW - same_CHW)).sum()
            gradient_BCHW[index] = valid_1HW * (ones_1HW - 2 * same_CHW)
        ctx.save_for_backward(gradient_BCHW / len(images_B3HW))
        return energy / len(images_B3HW)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient_BCHW,) = ctx.saved_tensors
        return grad_output * gradient_BCHW, None, None, None, None


def _own_classes(soft_CHW: Tensor) -> tuple[Tensor, Tensor]:
    """The channels to filter, OWN_CLASSES at most, and which of them stands for each class: (C,) int64."""
    classes, device = len(soft_CHW), soft_CHW.device
    if classes <= OWN_CLASSES:
        return soft_CHW, torch.arange(classes, device=device)
    rest = OWN_CLASSES - 1
    own = soft_CHW.sum(dim=(1, 2)).topk(rest).indices
    slot_C = torch.full((classes,), rest, device=device)
    slot_C.scatter_(0, own, torch.arange(rest, device=device))
    in_rest_C = (slot_C == rest).float()
    mean_1HW = torch.tensordot(in_rest_C, soft_CHW, dims=1)[None] / (classes - rest)
    return torch.cat([soft_CHW[own], mean_1HW]), slot_C


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
    kernel_MM, axis_L3 = _colour_axis(sigma_rgb, image_3HW.device)
    cells_NT, weights_NT = _colour_cells(image_3HW.flatten(1).T, len(kernel_MM), axis_L3)
    touches = _by_cell(cells_NT, weights_NT, len(kernel_MM) ** 3)
    values_ND = values_DHW.flatten(1).T.contiguous()  # the channels of a pixel side by side
    result_ND = torch.zeros_like(values_ND)
    modes = _spatial_modes(*image_3HW.shape[1:], sigma_xy, image_3HW.device)
    at_once = CHANNELS_ON_CPU if image_3HW.device.type == "cpu" else CHANNELS_ON_GPU
    for modes_NR in torch.split(modes, max(1, at_once // len(values_DHW)), dim=1):
        spread_NRD = modes_NR[:, :, None] * values_ND[:, None, :]
        grid = _multiply_axes(_splat(spread_NRD.flatten(1), *touches), kernel_MM)
        read = F.embedding_bag(cells_NT, grid, mode="sum", per_sample_weights=weights_NT)
        for mode_N, read_ND in zip(modes_NR.unbind(dim=1), read.view_as(spread_NRD).unbind(dim=1), strict=True):
            result_ND.addcmul_(read_ND, mode_N[:, None])
    return result_ND.T.reshape(values_DHW.shape)


def _by_cell(cells_NT: Tensor, weights_NT: Tensor, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The (pixel, cell) pairs sorted by cell: pixels and weights (N * T,), and where each cell begins."""
    cells, order = cells_NT.flatten().sort()
    numbers = torch.arange(num_cells, dtype=cells.dtype, device=cells.device)
    begins = torch.searchsorted(cells, numbers, out_int32=True)
    pixels = order.int() // cells_NT.shape[1]
    return pixels, weights_NT.flatten().index_select(0, order), begins


def _splat(values_ND: Tensor, pixels: Tensor, weights: Tensor, begins: Tensor) -> Tensor:
    """(num_cells, D): the weighted sum of the pixels of each cell."""
    return F.embedding_bag(pixels, values_ND, begins, mode="sum", per_sample_weights=weights)


def _multiply_axes(grid: Tensor, kernel_MM: Tensor) -> Tensor:
    """Multiply the colour grid (M * M * M, D) by the kernel along r, g and b."""
    nodes, channels = len(kernel_MM), grid.shape[1]
    grid = kernel_MM @ grid.view(nodes, -1)
    grid = kernel_MM @ grid.view(nodes, nodes, -1)
    grid = kernel_MM @ grid.view(nodes * nodes, nodes, channels)
    return grid.reshape(-1, channels)


def _colour_cells(colours_N3: Tensor, nodes: int, axis_L3: Tensor) -> tuple[Tensor, Tensor]:
    """The 27 cells of each colour (int32) and its weights there, both (N, 27)."""
    level_N3 = (colours_N3 * ((len(axis_L3) - 1) / COLOUR_RANGE)).round().int()
    first_N3 = (level_N3 // LEVELS_PER_CELL).clamp(max=nodes - 3)
    red_N, green_N, blue_N = first_N3.unbind(dim=1)
    start_N = (red_N * nodes + green_N) * nodes + blue_N
    step_3 = torch.arange(3, dtype=torch.int32, device=colours_N3.device)
    step_T = ((step_3[:, None, None] * nodes + step_3[:, None]) * nodes + step_3).flatten()
    red_N3, green_N3, blue_N3 = axis_L3[level_N3].unbind(dim=1)
    weights_NT = red_N3[:, :, None, None] * green_N3[:, None, :, None] * blue_N3[:, None, None, :]
    return start_N[:, None] + step_T, weights_NT.flatten(1)


@lru_cache(maxsize=8)
def _colour_axis(sigma_rgb: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The kernel between the nodes of an axis (M, M) and the weights of each level on its three nodes (L, 3)."""
    cells = max(1, int(np.ceil(CELLS_PER_SIGMA * COLOUR_RANGE / sigma_rgb)))
    level_L = np.arange(cells * LEVELS_PER_CELL + 1)
    first_L = np.minimum(level_L // LEVELS_PER_CELL, cells - 1)
    t_L = level_L / LEVELS_PER_CELL - first_L
    nodes_L3 = first_L[:, None] + np.arange(3)
    basis_LM = np.zeros((len(level_L), cells + 2))
    splines_L3 = np.stack([0.5 * (1 - t_L) ** 2, 0.5 + t_L * (1 - t_L), 0.5 * t_L**2], axis=1)
    np.put_along_axis(basis_LM, nodes_L3, splines_L3, axis=1)
    gaussian_LL = _gaussian(level_L * (COLOUR_RANGE / level_L[-1]), sigma_rgb)
    kernel_MM, basis_LM = _fit_kernel(basis_LM, gaussian_LL)
    for _ in range(COLOUR_FITS):
        basis_LM = _fit_weights(kernel_MM, basis_LM, gaussian_LL, first_L)
        kernel_MM, basis_LM = _fit_kernel(basis_LM, gaussian_LL)
    weights_L3 = np.take_along_axis(basis_LM, nodes_L3, axis=1)
    kernel, weights = torch.from_numpy(kernel_MM).float(), torch.from_numpy(weights_L3).float()
    return kernel.to(device, non_blocking=True), weights.to(device, non_blocking=True)


def _fit_kernel(
    basis_LM: NDArray[np.float64], gaussian_LL: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The kernel for which ``basis @ kernel @ basis.T`` fits the Gaussian best; the basis, scaled to diagonal 1."""
    fit_ML = np.linalg.pinv(basis_LM)
    kernel_MM = fit_ML @ gaussian_LL @ fit_ML.T
    itself_L1 = ((basis_LM @ kernel_MM) * basis_LM).sum(axis=1, keepdims=True)
    return kernel_MM, basis_LM / np.sqrt(itself_L1)


def _fit_weights(
    kernel_MM: NDArray[np.float64],
    basis_LM: NDArray[np.float64],
    gaussian_LL: NDArray[np.float64],
    first_L: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The basis whose three weights of each level fit its row of the Gaussian best, the other rows kept."""
    reach_ML = kernel_MM @ basis_LM.T
    fitted_LM = np.zeros_like(basis_LM)
    for first in range(len(kernel_MM) - 2):
        rows, nodes = first_L == first, slice(first, first + 3)
        fitted_LM[rows, nodes] = gaussian_LL[rows] @ np.linalg.pinv(reach_ML[nodes])
    return fitted_LM


@lru_cache(maxsize=32)
def _spatial_modes(height: int, width: int, sigma_xy: float, device: torch.device) -> Tensor:
    """(N, R): products of eigenvectors whose ``modes @ modes.T`` is the spatial Gaussian."""
    rows, columns = _modes(height, sigma_xy), _modes(width, sigma_xy)
    size = np.square(rows).sum(axis=0)[:, None] * np.square(columns).sum(axis=0)
    row, column = np.nonzero(size >= SPATIAL_TOLERANCE * size.max())
    modes = rows[:, None, row] * columns[None, :, column]
    return torch.from_numpy(modes.reshape(height * width, -1)).float().to(device, non_blocking=True)


def _modes(length: int, sigma: float) -> NDArray[np.float64]:
    """Eigenvectors of the Gaussian over ``length`` pixels, times the roots of their eigenvalues."""
    values, vectors = np.linalg.eigh(_gaussian(np.arange(length, dtype=np.float64), sigma))
    modes: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0))
    return modes


def _gaussian(places: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """exp(-(a - b)^2 / (2 sigma^2)) for every pair of places."""
    affinity: NDArray[np.float64] = np.exp(-0.5 * np.square((places[:, None] - places) / sigma))
    return affinity
