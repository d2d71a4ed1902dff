"""What a checkpoint of a training holds: ``last.pt`` everything that a resume needs, ``best.pt`` weights alone.

A resumed run ends bit for bit as one that was never stopped. All that is random in a step follows from the seed and the
number of the step, so the number, the weights, the optimiser and the sums of the metrics are enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.config import Config
from wsss.files import sync_file, sync_folder
from wsss.models.checkpoint import save_checkpoint
from wsss.outputs.provenance import all_of, chosen_on
from wsss.training.metrics import METRICS
from wsss.training.optimiser import RULE, make_optimizer
from wsss.training.step import TrainingStep


@dataclass(slots=True)
class State:
    """How far a run has come.

    Attributes:
        step: steps taken.
        validated: steps that were taken when it was last validated; -1 before.
        best: main figure of the best validation.
        sums: of each loss term since the last line of metrics, scalars on the device.
        since: steps in the sums.
        skipped: bad steps since the last line of metrics.
        in_a_row: bad steps since the last good one.
    """

    step: int = 0
    validated: int = -1
    best: float = -math.inf
    sums: dict[str, Tensor] = field(default_factory=dict)
    since: int = 0
    skipped: int = 0
    in_a_row: int = 0


def save_last(
    run: Path,
    config: Config,
    task: Mapping[str, Any],
    step: TrainingStep,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    state: State,
) -> None:
    """Write ``last.pt``; the metrics up to it reach the disk first.

    Args:
        run: the folder.
        config: of the run.
        task: plain values that the command needs to resume (`wsss.training.start`).
        step: holds the network and its average.
        optimizer: of the network.
        scaler: of the gradients under fp16.
        state: how far the run has come.

    Raises:
        DiskError: it cannot be written.
    """
    training: dict[str, Any] = {
        "step": state.step,
        "validated": state.validated,
        "best": state.best,
        "window": {
            "sums": state.sums,
            "since": state.since,
            "skipped": state.skipped,
            "in_a_row": state.in_a_row,
        },
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    if step.average is not None:
        training |= {"network": step.network.state_dict(), "averaged": step.average.steps}
    sync_file(run / METRICS)
    save_checkpoint(
        run / "last.pt",
        step.shown,
        config,
        supervision=list(step.shown.supervision),
        training=training,
        task=dict(task),
    )
    sync_folder(run)


def save_best(run: Path, config: Config, task: Mapping[str, Any], step: TrainingStep, state: State, split: str) -> None:
    """Write ``best.pt``: the weights that are shown, chosen on a split; see ``save_last``."""
    save_checkpoint(
        run / "best.pt",
        step.shown,
        config,
        supervision=list(all_of(step.shown.supervision, [chosen_on(split)])),
        training={"step": state.step},
        task=dict(task),
    )
    sync_folder(run)


def restore(
    content: Mapping[str, Any],
    training: Mapping[str, Any],
    step: TrainingStep,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> tuple[State, torch.optim.Optimizer]:
    """Load the content of ``last.pt`` into a step and a scaler.

    Args:
        content: of the checkpoint.
        training: its part of that name.
        step: gets the weights.
        scaler: gets its scale.
        device: of the sums.

    Returns:
        the state, and an optimiser with the groups that the checkpoint was written with.
    """
    step.shown.load_state_dict(content["network"])
    if step.average is not None:
        step.network.load_state_dict(training["network"])
        step.average.steps = training["averaged"]
    saved = training["optimizer"]
    optimizer = make_optimizer(
        step.section,
        step.network,
        decoder_lr_factor=step.decoder_lr_factor,
        layer_decay=step.layer_decay,
        by_dimension=RULE not in saved["param_groups"][0],
    )
    optimizer.load_state_dict(saved)
    scaler.load_state_dict(training["scaler"])
    window = training.get("window", {})
    sums = {name: value.to(device) for name, value in window.get("sums", {}).items()}
    return State(
        **{
            "step": training["step"],
            "validated": training.get("validated", training["step"]),  # earlier versions validated before they saved
            "best": training["best"],
            **window,
            "sums": sums,
        }
    ), optimizer
