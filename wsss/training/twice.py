"""A step that is computed twice from the same state, to find a device that computes wrongly.

A processor or memory with a fault gives other numbers for the same operations now and then, and nothing says so: the
training only ends worse. With ``run.verify_steps`` N, one step in N is computed again from the same weights, batch and
random numbers, and its losses and gradients are compared. The step itself uses those that it computed first, so the run
is bit for bit the one without the option.

What is computed again are losses and gradients: a step in N takes about twice its time in one process, and three times
in several, where each process compares its own gradients before they are averaged, so that the one with the fault is
named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsss.errors import MachineError

TOLERANCE = 1e-2
"""Largest difference on a device that does not repeat bit for bit, as a share of the norm of the whole gradient; of a
loss, of its value. Sums in another order differ by less than 1e-4 in float32, and by less than this in half precision;
a wrong bit in the upper half of a number makes much more."""


class ComputesWrongly(MachineError):
    """A device gave different results for the same step."""

    kind = "computes-wrongly"


@dataclass(frozen=True, slots=True)
class Computed:
    """What a step computed.

    Attributes:
        losses: by name, scalars.
        gradients: by name of the parameter; None where there is none.
    """

    losses: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None]

    @classmethod
    def of(cls, losses: Mapping[str, Tensor], network: nn.Module) -> Computed:
        """The losses and the gradients of a network, not copied: they must be replaced, and not added to."""
        return cls(losses, {name: parameter.grad for name, parameter in network.named_parameters()})

    def give(self, network: nn.Module) -> None:
        """Make these the gradients of a network."""
        for name, parameter in network.named_parameters():
            parameter.grad = self.gradients[name]


def is_exact(device: torch.device) -> bool:
    """Whether a device gives the same bits again: the CPU, and others under ``run.deterministic``."""
    return device.type == "cpu" or torch.are_deterministic_algorithms_enabled()


def difference_of(first: Computed, second: Computed, *, exact: bool) -> str | None:
    """What differs most between two computations of a step, in words; None where nothing does.

    Values that are not finite in both are equal.

    Args:
        first: of the step.
        second: of the same step.
        exact: whether every bit counts; else up to ``TOLERANCE``.
    """
    for name, loss in first.losses.items():
        most = 0.0 if exact else TOLERANCE * abs(float(loss))
        found = _difference(loss, second.losses[name])
        if found > most:
            return f"the loss {name} is {float(loss):.9g} and then {float(second.losses[name]):.9g}"
    norm = _norm(first.gradients) if not exact else 0.0
    worst, at = 0.0, ""
    for name, gradient in first.gradients.items():
        other = second.gradients[name]
        if (gradient is None) != (other is None):
            return f"{name} has a gradient in one of them alone"
        if gradient is None or other is None or torch.equal(gradient, other):
            continue
        found = _difference(gradient, other)
        if found > worst and found > TOLERANCE * norm * (not exact):
            worst, at = found, name
    return f"the gradient of {at} differs by up to {worst:.3g}" if at else None


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite where only one value is finite, 0 where both are not."""
    one, other = one.double(), other.double()
    apart = (one - other).abs()
    apart = torch.where(one.isfinite() & other.isfinite(), apart, torch.inf)
    apart = torch.where(~one.isfinite() & ~other.isfinite(), 0.0, apart)
    return float(apart.max()) if apart.numel() else 0.0


def _norm(gradients: Mapping[str, Tensor | None]) -> float:
    found = [gradient for gradient in gradients.values() if gradient is not None]
    return float(nn.utils.get_total_norm(found)) if found else 0.0
