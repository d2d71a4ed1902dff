"""Losses and gradients that are no finite numbers: noticed, told with their images, stopped at or passed over.

On the CPU, and wherever bad steps are skipped, each step is looked at before it changes the weights. On CUDA that would
make the host wait for every step, so a run that is to stop notes on the device which step was the first bad one, and
looks there when it logs, validates and saves: no checkpoint ever holds what a bad step made of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wsss.errors import MachineError
from wsss.files import whole

MOST_IN_A_ROW = 10
"""Bad steps one after the other that are skipped; more will not be mended by another batch."""
FILE = "bad-batch.pt"
NAMES_SHOWN = 4


class BadLoss(MachineError):
    """Training left the numbers that this machine's arithmetic knows."""


@dataclass(frozen=True, slots=True)
class BadStep:
    """A step that must not change the weights.

    Attributes:
        step: from 1.
        names: of its images.
        terms: the loss and its terms, where they were looked at.
        path: of the saved batch.
    """

    step: int
    names: Sequence[str]
    terms: Mapping[str, float]
    path: Path

    def what(self) -> str:
        """What is bad, at which images, and where they are."""
        loss = self.terms.get("loss")
        if loss is None:
            cause = "the loss or its gradient is not finite"
        elif math.isfinite(loss):
            cause = "the gradient is not finite"
        else:
            cause = f"the loss is {loss}"
        more = len(self.names) - NAMES_SHOWN
        names = ", ".join(self.names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return f"{cause} at step {self.step} for {names}; {self.path} holds the batch"

    def error(self, run: Path, section: str) -> BadLoss:
        """For a run that ends here."""
        fix = "start again with a lower --lr, with --amp none"
        return BadLoss(f"{run}: {self.what()}", f"{fix}, or with --set {section}.on_bad_loss=skip")


class LossWatch:
    """Looks after each step, or notes the first bad one for later.

    Args:
        device: of the losses.
        choice: "stop" or "skip".
    """

    def __init__(self, device: torch.device, choice: str) -> None:
        self.choice = choice
        self.looks = device.type == "cpu" or choice == "skip"
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    def allows(self, value: Tensor, step: int) -> bool:
        """Whether a step may change the weights; always true where nobody looks yet.

        Args:
            value: a scalar, finite where the step is good.
            step: from 0.
        """
        if self.looks:
            return math.isfinite(value.item())
        self._first = torch.where((self._first < 0) & ~value.isfinite(), step, self._first)
        return True

    def first_bad(self) -> int | None:
        """The first bad step that was allowed, from 0."""
        step = -1 if self.looks else int(self._first)
        return step if step >= 0 else None

    def skips(self, in_a_row: int) -> bool:
        """Whether a run goes on after so many bad steps one after the other."""
        return self.choice == "skip" and in_a_row <= MOST_IN_A_ROW


def save_batch(
    run: Path, step: int, names: Sequence[str], terms: Mapping[str, float], batch: Mapping[str, Tensor]
) -> BadStep:
    """Write a batch as its network met it, in place of an earlier one; ``torch.load(..., weights_only=True)`` reads it.

    Args:
        run: the folder.
        step: from 1.
        names: of the images.
        terms: losses, where they are known.
        batch: "image" (B, 3, S, S) uint8 and what belongs to it.
    """
    path = run / FILE
    with whole(path) as file:
        torch.save({"step": step, "names": list(names), "loss": dict(terms), "batch": dict(batch)}, file)
    return BadStep(step, names, terms, path)
