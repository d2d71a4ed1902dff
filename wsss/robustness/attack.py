"""Perturbations that are made against a network: ascent of its loss by the sign of the gradient.

A patch may have any colour, a perturbation of the whole image at most ``radius`` in any value (l-infinity). The loss is
that of the tags, or of the network's own clean label map with SegPGD's weights (Gu et al., arXiv 2207.12391), so no
mask is opened.

Shape suffixes: B images, C label channels, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.maps.generate import frozen
from wsss.models.network import Network
from wsss.robustness.corruptions import random_of

PATCH_STEP = 8 / 255
"""Change of a value in one step of a patch."""
STEPS_THERE = 2.5
"""A perturbation of the whole image could walk so many times its radius in all of its steps."""

Loss = Callable[[Tensor, int], Tensor]
"""Of images (B, 3, H, W), at a step from 0: a scalar that is raised."""


def noise_like(images_B3HW: Tensor, names: Sequence[str]) -> Tensor:
    """Values in [0, 1) that follow from the names of the images alone."""
    shape = tuple(images_B3HW.shape[1:])
    drawn = [random_of(name, "noise").random(shape, dtype=np.float32) for name in names]
    return torch.from_numpy(np.stack(drawn)).to(images_B3HW.device)


def patch_attack(
    network: Network, images_B3HW: Tensor, inside_B1HW: Tensor, loss: Loss, names: Sequence[str], steps: int
) -> Tensor:
    """Images with noise in a part of each, and after it ``steps`` steps in this part; 0 steps leave the noise.

    Args:
        network: in ``eval`` mode, with the edits that the attack is made against.
        images_B3HW: in [0, 1].
        inside_B1HW: bool, the pixels that may change.
        loss: is raised.
        names: of the images: the noise follows from them.
        steps: number of steps.
    """
    attacked = torch.where(inside_B1HW, noise_like(images_B3HW, names), images_B3HW)
    for step in range(steps):
        gradient = _gradient(network, attacked, loss, step)
        attacked = torch.where(inside_B1HW, (attacked + PATCH_STEP * gradient.sign()).clamp(0, 1), attacked)
    return attacked


def bounded_attack(
    network: Network, images_B3HW: Tensor, radius: float, loss: Loss, names: Sequence[str], steps: int
) -> Tensor:
    """Images of which no value changes by more than ``radius``, in [0, 1]; 0 steps leave noise within it (PGD)."""
    low, high = (images_B3HW - radius).clamp_min(0), (images_B3HW + radius).clamp_max(1)
    attacked = low + (high - low) * noise_like(images_B3HW, names)
    step_size = STEPS_THERE * radius / max(1, steps)
    for step in range(steps):
        gradient = _gradient(network, attacked, loss, step)
        attacked = torch.minimum(torch.maximum(attacked + step_size * gradient.sign(), low), high)
    return attacked


def tag_loss(network: Network, present_BK: Tensor, known_BK: Tensor) -> Loss:
    """The classification loss of images against their tags; unknown tags take no part."""
    target_BK, weight_BK = (of.to(network.mean.device).float() for of in (present_BK, known_BK))

    def loss(images_B3HW: Tensor, step: int) -> Tensor:
        logits_BK = network.classify(images_B3HW).float()
        return F.binary_cross_entropy_with_logits(logits_BK, target_BK, weight_BK, reduction="sum")

    return loss


def mask_loss(network: Network, clean_BHW: Tensor, steps: int) -> Loss:
    """Cross-entropy of the decoder against the clean label map, weighted as in SegPGD.

    At step t of T a pixel that still has its clean class has weight 1 - t / 2T, another one t / 2T.

    Args:
        network: with a decoder.
        clean_BHW: class indices on the decoder's grid.
        steps: T.
    """

    def loss(images_B3HW: Tensor, step: int) -> Tensor:
        scores_BCHW = network.scores_on_grid(images_B3HW).float()
        share = step / (2 * steps)
        right_BHW = scores_BCHW.argmax(dim=1) == clean_BHW
        each_BHW = F.cross_entropy(scores_BCHW, clean_BHW, reduction="none")
        return (torch.where(right_BHW, 1 - share, share) * each_BHW).sum()

    return loss


def _gradient(network: Network, images_B3HW: Tensor, loss: Loss, step: int) -> Tensor:
    """The gradient of the loss at the images; images do not influence each other, so a sum is each one's own."""
    with frozen(network), torch.enable_grad():
        images = images_B3HW.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(images, step), images)
    return gradient
