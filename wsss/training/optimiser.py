"""The optimiser of a training, its groups of parameters, and its learning rate from step to step."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]  # timm exports it implicitly
from torch import nn

from wsss.config import Optimisation
from wsss.models.network import Network

RULE = "decay_rule"
"""Key of the optimiser groups of this version in a checkpoint; groups of earlier versions lack it."""


def make_optimizer(
    section: Optimisation,
    network: Network,
    *,
    decoder_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
    by_dimension: bool = False,
) -> torch.optim.Optimizer:
    """The optimiser of a network.

    Args:
        section: the optimiser and its rates.
        network: whose parameters are trained.
        decoder_lr_factor: learning rate of the decoder relative to that of the other parts.
        layer_decay: learning rate of a block relative to that of the block above it; below 1 the blocks and norms alone
            of the backbone are trained.
        by_dimension: groups as earlier versions made them, for resuming their checkpoints: every tensor of two
            dimensions or more decays, the position embeddings and tokens of timm too.
    """
    groups = parameter_groups(
        section, network, decoder_lr_factor=decoder_lr_factor, layer_decay=layer_decay, by_dimension=by_dimension
    )
    if section.optimizer == "sgd-poly":
        return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    on_gpu = all(parameter.is_cuda for parameter in network.parameters())
    return torch.optim.AdamW(groups, lr=section.lr, fused=on_gpu or None)


def parameter_groups(
    section: Optimisation,
    network: Network,
    *,
    decoder_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
    by_dimension: bool = False,
) -> list[dict[str, Any]]:
    """Groups of parameters with ``weight_decay``, ``lr`` and ``base_lr`` (before the schedule); see ``make_optimizer``.

    Biases, norms, edits of attention and what timm exempts (position embeddings, class token) have weight decay 0.
    """
    parts: list[tuple[dict[str, nn.Module], float]] = [
        ({"backbone": network.backbone, "readout": network.readout}, section.lr)
    ]
    if layer_decay < 1:
        above = {**network.backbone.norms, "readout": network.readout}
        rates = [section.lr * layer_decay**i for i in range(network.backbone.depth)]
        from_last = reversed(network.backbone.blocks)
        blocks = [({"block": block}, rate) for block, rate in zip(from_last, rates, strict=True)]
        parts = [(above, section.lr), *blocks]
    if network.decoder is not None:
        parts.append(({"decoder": network.decoder}, section.lr * decoder_lr_factor))
    exempt = {f"backbone.{name}" for name in network.backbone.no_weight_decay()}
    groups: list[dict[str, Any]] = []
    for modules, lr in parts:
        part = nn.ModuleDict(modules)
        if by_dimension:
            found = _by_dimension(part, section.weight_decay)
        else:
            found = param_groups_weight_decay(part, section.weight_decay, no_weight_decay_list=exempt)
            found = [group | {RULE: "timm"} for group in found]
        groups += [group | {"lr": lr, "base_lr": lr} for group in found]
    if edits := [parameter for parameter in network.attention.parameters() if parameter.requires_grad]:
        lr = section.lr * section.attention_lr_factor
        groups.append({"params": edits, "weight_decay": 0.0, RULE: "timm", "lr": lr, "base_lr": lr})
    return groups


def _by_dimension(part: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its base rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def schedule(section: Optimisation, step: int, total: int) -> float:
    """Learning rate at a step relative to its base: warm-up, then cosine to 0 (AdamW) or (1 - t)^0.9 (SGD)."""
    if section.optimizer == "sgd-poly":
        return math.pow(1 - step / total, 0.9)
    warmup = section.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
