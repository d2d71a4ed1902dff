"""Small real transformers of timm in which attention matters, and naive class maps through explicit attention.

timm's own unfused attention is run; what an edit should do is written as a function of the softmaxed weights, which
replaces them behind timm's ``attn_drop``. Nothing of `wsss.attention` takes part, but for `as_edited`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsss.attention.edit import Call, Edit, Pass
from wsss.models.backbone import Backbone
from wsss.models.network import Network
from wsss.models.readout import READOUTS

CLASSES = ("a", "b", "c")
DEPTH, HEADS = 4, 3
BACKBONES = {
    "vit_base_patch16_siglip_gap_224": "pool",
    "deit_tiny_patch16_224": "both",
    "deit_tiny_distilled_patch16_224": "project",
    "vit_small_patch14_reg4_dinov2": "token",
    "vit_small_patch16_rope_224": "project",
    "eva02_tiny_patch14_224": "both",
    "vit_small_patch16_dinov3": "project",
}
"""Names with 0, 1, 2 and 5 prefix tokens, with rotary positions and of EVA; the readout that each has here."""

Rule = Callable[[Tensor, int, int], Tensor]
"""Softmaxed weights (B, A, N, N), index of the block and P to the weights that an edit should make of them."""


def network_of(name: str, readout: str | None = None, edits: nn.ModuleList | None = None) -> Network:
    """Seeded, in ``eval`` mode, with 24 channels and patches of 8 pixels; layer scales are raised to 1."""
    torch.manual_seed(0)
    overrides = {"depth": DEPTH, "embed_dim": 24, "num_heads": HEADS, "patch_size": 8, "img_size": 32}
    backbone = Backbone(name, overrides=overrides)
    for parameter_name, parameter in backbone.named_parameters():
        if "gamma" in parameter_name:
            nn.init.ones_(parameter)
        elif (
            ("attn" in parameter_name or "mlp" in parameter_name)
            and parameter.ndim == 2
            and "proj" not in parameter_name
        ):
            nn.init.normal_(parameter, std=0.3)
    network = Network(backbone, READOUTS[readout or BACKBONES[name]](24, len(CLASSES)), None, CLASSES, edits)
    return network.eval()


@contextmanager
def explicit(network: Network, rule: Rule) -> Iterator[list[Tensor]]:
    """Inside, attention is unfused and its weights are replaced by those of a rule, which are collected."""
    kept: list[Tensor] = []
    handles = []
    prefix = network.backbone.num_prefix_tokens
    for layer, block in enumerate(network.backbone.vit.blocks):
        block.attn.fused_attn = False

        def replace(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, layer: int = layer) -> Tensor:
            kept.append(rule(output, layer, prefix))
            return kept[-1]

        handles.append(block.attn.attn_drop.register_forward_hook(replace))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
        for block in network.backbone.vit.blocks:
            block.attn.fused_attn = True


def explicit_logits(network: Network, images: Tensor, rule: Rule) -> Tensor:
    with explicit(network, rule):
        return network.classify(images)


class Keeps(Edit):
    """Changes nothing; keeps the weights that the edits before it left, which lie on the way to the logits."""

    def __init__(self, kept: list[Tensor]) -> None:
        super().__init__()
        self.kept = kept

    def weights(self, weights_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        self.kept.append(weights_BANN)
        return weights_BANN


@contextmanager
def as_edited(network: Network) -> Iterator[list[Tensor]]:
    """Inside, the weights of the network's own edits are collected, without the tape of class maps."""
    kept: list[Tensor] = []
    with network.edited(Keeps(kept)):
        yield kept


def explicit_maps(
    network: Network, images: Tensor, present: Tensor, rule: Rule | None, start: int, spread: int
) -> Tensor:
    """GETAM, spread by the sum of all blocks: one forward and backward an (image, class).

    The weights are those of a rule, or those that the network's own edits make.
    """
    first, fed = network.backbone.num_prefix_tokens, network.readout.fed
    maps = []
    for b, k in present.nonzero().tolist():
        with as_edited(network) if rule is None else explicit(network, rule) as kept:
            gradients = torch.autograd.grad(network.classify(images[b : b + 1])[0, k], kept)
        row_N = torch.zeros(kept[0].shape[-1])
        for weights, gradient in list(zip(kept, gradients, strict=True))[start:]:
            element = (weights * gradient).relu().mean(dim=1)[0] * gradient.relu().mean(dim=1)[0]
            row_N = row_N + (element[0] if fed != "pool" else 0) + (element[first:].mean(0) if fed != "token" else 0)
        affinity_NN = torch.stack([weights.detach().mean(dim=1)[0] for weights in kept]).sum(dim=0)
        affinity_MM, map_M = affinity_NN[first:, first:], row_N.detach()[first:]
        for _ in range(spread):
            map_M = affinity_MM @ map_M / affinity_MM.sum(dim=1)
        maps.append(map_M)
    return torch.stack(maps)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).detach().norm() / theirs.detach().norm())
