"""Steps whose loss or gradient is NaN or infinite: found, reported with their images, then stopped at or skipped.

On the CPU, and wherever bad steps are skipped, each step is checked before it changes the weights. On CUDA that would
synchronise the device at every step. There a run that stops at bad steps keeps the number of the first bad step on the
device, and reads it when it logs, validates and saves, so no checkpoint holds weights that a bad step has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.data.augment import Key, StepBatches, TrainingImages
from wsss.data.loading import collate
from wsss.errors import MachineError
from wsss.files import whole
from wsss.training.ranks import ALONE, Ranks

MOST_IN_A_ROW = 10
"""Bad steps in a row that are skipped; after more of them the run ends, since another batch would not help."""
FILE = "bad-batch.pt"
NAMES_SHOWN = 4


class BadLoss(MachineError):
    """The loss or a gradient became NaN or infinite."""

    kind = "bad-loss"


@dataclass(frozen=True, slots=True)
class BadStep:
    """A step that must not change the weights.

    Attributes:
        step: from 1.
        names: of its images.
        terms: the loss and its terms, where they were read.
        path: of the saved batch.
    """

    step: int
    names: Sequence[str]
    terms: Mapping[str, float]
    path: Path

    def what(self) -> str:
        """What is not finite, for which images, and where their batch is saved."""
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


class LossWatch:
    """Checks each step, or keeps the number of the first bad one for later.

    Args:
        device: of the losses.
        choice: "stop" or "skip".

    Attributes:
        looks: whether each step is checked at once.
    """

    def __init__(self, device: torch.device, choice: str) -> None:
        self.choice = choice
        self.looks = device.type == "cpu" or choice == "skip"
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    def allows(self, value: Tensor, step: int) -> bool:
        """Whether a step may change the weights; always true where steps are not checked at once.

        Args:
            value: a scalar, finite where the step is good.
            step: from 0.
        """
        if self.looks:
            return math.isfinite(value.item())
        self._first = torch.where((self._first < 0) & ~value.isfinite(), step, self._first)
        return True

    def first_bad(self) -> int | None:
        """The first bad step that was allowed, from 0; synchronises the device."""
        step = -1 if self.looks else int(self._first)
        return step if step >= 0 else None

    def skips(self, in_a_row: int) -> bool:
        """Whether a run continues after ``in_a_row`` consecutive bad steps."""
        return self.choice == "skip" and in_a_row <= MOST_IN_A_ROW


class BadSteps:
    """Saves the batches of bad steps of a run, and ends it where it must.

    Args:
        run: the folder.
        images: of the run.
        batches: the images of each step.
        section: name of the config section with ``on_bad_loss``.
        watch: finds bad steps.
        ranks: the processes of the run.
        more: what is needed to take the step again (`wsss.training.replay`): at most the network, its average and its
            config.
    """

    def __init__(
        self,
        run: Path,
        images: TrainingImages,
        batches: StepBatches,
        section: str,
        watch: LossWatch,
        ranks: Ranks = ALONE,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.run = run
        self.images = images
        self.batches = batches
        self.section = section
        self.watch = watch
        self.ranks = ranks
        self.more = more

    def handle(self, step: int, terms: Mapping[str, float], in_a_row: int, is_bad: Sequence[bool] = (False,)) -> str:
        """Save the batch of a bad step.

        Args:
            step: from 0.
            terms: the loss and its terms.
            in_a_row: bad steps since the last good one, this one included.
            is_bad: of the equal parts of the batch, by process: whether its loss is not finite.

        Returns:
            what to report of a step that is skipped.

        Raises:
            BadLoss: the run ends here.
        """
        bad = self.ranks.lead(lambda: self._save(step, terms, is_bad))
        if not self.watch.skips(in_a_row):
            raise self._error(bad)
        return f"skipped a step: {bad.what()}"

    def stop_if_any(self) -> None:
        """End the run if a step was bad that was not checked when it was taken.

        Raises:
            BadLoss: one was.
        """
        step = self.watch.first_bad()
        if step is not None:
            raise self._error(self.ranks.lead(lambda: self._save(step, {})))

    def _error(self, bad: BadStep) -> BadLoss:
        fix = "start again with a lower --lr, with --amp none"
        return BadLoss(f"{self.run}: {bad.what()}", f"{fix}, or with --set {self.section}.on_bad_loss=skip")

    def _save(self, step: int, terms: Mapping[str, float], is_bad: Sequence[bool] = (False,)) -> BadStep:
        """Read the batch of a step again, which follows from the seed and the step, and write it.

        The images of the bad parts are named, or all where no part is known to be bad.
        """
        keys = self._keys(step)
        names = [self.images.name(index) for _, index in keys]
        batch = collate([self.images[key] for key in keys])
        saved = save_batch(self.run, step + 1, names, terms, batch, self.more())
        rows = len(names) // len(is_bad)
        return replace(saved, names=[name for i, name in enumerate(names) if is_bad[i // rows]] or names)

    def _keys(self, step: int) -> list[Key]:
        batches = self.batches
        return next(iter(StepBatches(batches.length, batches.batch_size, step, step + 1, batches.seed)))


def save_batch(
    run: Path,
    step: int,
    names: Sequence[str],
    terms: Mapping[str, float],
    batch: Mapping[str, Tensor],
    more: Mapping[str, Any],
) -> BadStep:
    """Write a batch as the network got it, over an earlier one; ``torch.load(..., weights_only=True)`` reads it.

    Args:
        run: the folder.
        step: from 1.
        names: of the images.
        terms: losses, where they are known.
        batch: "image" (B, 3, S, S) uint8 and its labels.
        more: see ``BadSteps``.

    Raises:
        DiskError: it cannot be written.
    """
    path = run / FILE
    with whole(path) as file:
        torch.save({"step": step, "names": list(names), "loss": dict(terms), "batch": dict(batch), **more}, file)
    return BadStep(step, names, terms, path)
