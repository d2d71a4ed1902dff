"""The optimiser of a training, and its learning rate from step to step."""

from __future__ import annotations

import math
from typing import Any

import torch

from wsss.config import Optimisation


def make_optimizer(section: Optimisation, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of groups of parameters with their own ``lr``; matrices decay, norms and biases do not."""
    parted: list[dict[str, Any]] = []
    for group in groups:
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        for decay, chosen in (
            (section.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            parted.append({"params": chosen, "lr": group["lr"], "base_lr": group["lr"], "weight_decay": decay})
    if section.optimizer == "sgd-poly":
        return torch.optim.SGD(parted, lr=section.lr, momentum=section.momentum)
    return torch.optim.AdamW(parted, lr=section.lr)


def schedule(section: Optimisation, step: int, total: int) -> float:
    """Learning rate at a step relative to its base: warm-up, then cosine to 0 (AdamW) or (1 - t)^0.9 (SGD)."""
    if section.optimizer == "sgd-poly":
        return math.pow(1 - step / total, 0.9)
    warmup = section.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
