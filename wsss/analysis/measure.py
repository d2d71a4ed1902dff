"""All figures of a batch: one recorded pass, and passes of images that were blanked or whose attention was changed.

Shape suffixes: B images, K classes, R present (image, class) pairs, L blocks, A heads, N tokens, M patches on a grid
h x w, O offsets along an axis, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsss.analysis.heads import (
    alignment,
    channel_gate,
    distance,
    explaining_row,
    head_spread,
    object_patches,
    offsets,
    patch_attention,
    query_spread,
)
from wsss.analysis.layers import deletions, gains
from wsss.errors import UsageError
from wsss.maps.generate import frozen
from wsss.maps.recorder import MapSettings, Recorder
from wsss.maps.tape import Attention
from wsss.models.network import Network
from wsss.outputs.figures import Figures

EVERY_BLOCK = ("cam", "gradcam", "objects")
"""Methods of class maps that read no range of blocks."""


def check_method(settings: MapSettings) -> None:
    """Refuse class maps that are not read from a range of blocks.

    Raises:
        UsageError: the method is one of ``EVERY_BLOCK``.
    """
    if settings.method in EVERY_BLOCK:
        raise UsageError(
            f"--method {settings.method} reads no range of blocks, so there is none to choose",
            "--method attention-gradient",
        )


def measure(
    network: Network,
    images_B3HW: Tensor,
    present_BK: Tensor,
    settings: MapSettings,
    truths: Sequence[NDArray[np.uint8] | None],
) -> list[Figures]:
    """The figures of each image of a batch.

    Args:
        network: in ``eval`` mode.
        images_B3HW: in [0, 1], in whole patches.
        present_BK: bool, on the host.
        settings: how class maps are read; their first block is not used.
        truths: the mask (H, W) of each image at its own size, for the alignment alone; None where there is none.

    Returns:
        For each image arrays by name, float32: "distance", "query_spread", "head_spread" and "alignment" (L, A),
        "offsets" (L, A, O, O), "gate" and "gate_deviation" (L,), "gain" and "deletion" (R, L), "maps" (L, R, h, w),
        in which R are its own classes in their order.
    """
    with frozen(network), torch.enable_grad():
        with Recorder(network, replace(settings, start_layer=0)) as recorder, gates(network) as gate_of:
            features = network.features(images_B3HW)
            logits_BK = network.readout(features)
        maps_by_start = recorder.maps_by_start(features, logits_BK, present_BK)
    logits_BK = logits_BK.detach()
    fed = network.readout.fed if settings.rows == "auto" else settings.rows
    with torch.no_grad(), torch.autocast(images_B3HW.device.type, enabled=False):
        by_image = _heads(network, recorder.tape.attentions, features.grid, truths)
        gate_LBC = torch.stack([gate_of[layer] for layer in sorted(gate_of)])
    by_image["gate"], by_image["gate_deviation"] = gate_LBC.mean(dim=2).T, gate_LBC.std(dim=2).T
    by_pair = {
        "gain": gains(network, images_B3HW, logits_BK, present_BK, fed),
        "deletion": deletions(network, images_B3HW, logits_BK, maps_by_start),
    }
    maps_LRhw = torch.stack([maps.values_Rhw for maps in maps_by_start])
    image_R = maps_by_start[0].image_R
    return [
        {name: values[i].float().cpu().numpy() for name, values in by_image.items()}
        | {name: values_RL[image_R == i].numpy() for name, values_RL in by_pair.items()}
        | {"maps": maps_LRhw[:, (image_R == i).to(maps_LRhw.device)].cpu().numpy()}
        for i in range(len(images_B3HW))
    ]


def _heads(
    network: Network,
    attentions: Sequence[Attention],
    grid: tuple[int, int],
    truths: Sequence[NDArray[np.uint8] | None],
) -> dict[str, Tensor]:
    """The figures of heads by name, each (B, L, A, ...)."""
    prefix, class_token = network.backbone.num_prefix_tokens, network.backbone.has_class_token
    nothing_M = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    pairs = [(nothing_M, nothing_M) if truth_HW is None else object_patches(truth_HW, grid) for truth_HW in truths]
    device = attentions[0].key_BAND.device
    object_BM, known_BM = (torch.stack(some).to(device) for some in zip(*pairs, strict=True))

    def of_block(attention: Attention) -> dict[str, Tensor]:
        weights_BAMM = patch_attention(attention, prefix)
        return {
            "distance": distance(weights_BAMM, grid),
            "offsets": offsets(weights_BAMM, grid),
            "query_spread": query_spread(weights_BAMM),
            "head_spread": head_spread(weights_BAMM),
            "alignment": alignment(explaining_row(attention, prefix, class_token=class_token), object_BM, known_BM),
        }

    by_block = [of_block(attention) for attention in attentions]
    return {name: torch.stack([figures[name] for figures in by_block], dim=1) for name in by_block[0]}


@contextmanager
def gates(network: Network) -> Iterator[dict[int, Tensor]]:
    """Inside, a pass leaves the channel gate of each block, (B, C), from what its MLP reads."""
    found: dict[int, Tensor] = {}
    prefix = network.backbone.num_prefix_tokens

    def keep(layer: int, mlp: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if layer not in found:  # a block may run again on the class token alone (``AttentionTape.narrow_start``)
            found[layer] = channel_gate(inputs[0].detach()[:, prefix:])

    with ExitStack() as hooks:
        for layer, block in enumerate(network.backbone.vit.blocks):
            hooks.callback(block.mlp.register_forward_pre_hook(partial(keep, layer)).remove)
        yield found
