"""Validation: figures of a network on a split, and when they are due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wsss.models.network import Network

BetweenBatches = Callable[[], None]
"""Called before each batch of a validation; may raise to end it."""


@dataclass(frozen=True, slots=True)
class Validation:
    """How a run is validated.

    Attributes:
        split: name of the split, for reports.
        main: name of the figure that chooses ``best.pt``; larger is better.
        figures: computes all figures of a network in ``eval`` mode.
    """

    split: str
    main: str
    figures: Callable[[Network, BetweenBatches], dict[str, float]]


def is_due(step: int, *, total: int, steps_per_epoch: int, every: int) -> bool:
    """Whether a validation belongs after a step.

    Args:
        step: steps taken.
        total: steps of the whole training; the last is always validated.
        steps_per_epoch: validations happen at the end of epochs alone.
        every: epochs between two validations.
    """
    epoch, rest = divmod(step, steps_per_epoch)
    return rest == 0 and (step == total or (step > 0 and epoch % every == 0))
