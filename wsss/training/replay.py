"""Take the step of a ``bad-batch.pt`` again and find where its first value arises that is not finite.

The file is read without running code. It holds the batch, the settings and, where the step did not change them, the
weights before it; else the weights of ``last.pt`` beside it stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.config import Config
from wsss.data.augment import mix
from wsss.errors import DataError
from wsss.machine import autocast, prepare_device
from wsss.models.archive import first_line, read_archive, strange
from wsss.models.checkpoint import find_checkpoint, network_from, read_checkpoint
from wsss.training.bad_loss import FILE
from wsss.training.classify import ClassifyStep
from wsss.training.loop import to_device, total_loss
from wsss.training.nonfinite import Finder, Place
from wsss.training.segment import SegmentStep
from wsss.training.step import TrainingStep

KEYS = ("step", "names", "batch", "parts", "making", "scale")
MOST_PARTS = 4096


@dataclass(frozen=True, slots=True)
class Replayed:
    """A step that was taken again.

    Attributes:
        step: from 1.
        place: where the first value that is not finite arises; None where all are finite here.
        images: names of those in which it arises.
        weights: step after which the weights were those that were taken; None where they are those of the step.
        device: it was taken on.
    """

    step: int
    place: Place | None
    images: tuple[str, ...]
    weights: int | None
    device: str


def replay(path: Path, device: str | None = None) -> Replayed:
    """Take a step again, in one process, part by part.

    What the processes of the step counted together, each part counts by itself here. Nothing is written.

    Args:
        path: a ``bad-batch.pt``, or its run.
        device: to compute on; None takes that of the run.

    Raises:
        DataError: it cannot be read, or an earlier version wrote it.
        MachineError: there is no such device.
    """
    path = path / FILE if path.is_dir() else path
    capture = read_capture(path)
    step, config, weights = _step_of(capture, path)
    run = config.run if device is None else config.run.model_copy(update={"device": device})
    chosen = prepare_device(run)
    step.to(chosen)
    number, parts = capture["step"] - 1, capture["parts"]
    batch = to_device(capture["batch"], chosen)
    counts = {name: count / parts for name, count in step.counts(batch).items()}
    names, rows = capture["names"], len(capture["names"]) // parts
    step.train()
    step.warm_up(number)
    place, first = None, 0
    for part in range(parts):
        finder = Finder(rows)
        torch.manual_seed(mix(run.seed, number, 1))
        step.take_part(part, parts)
        own = {name: values.chunk(parts)[part] for name, values in batch.items()}
        for name, values in own.items():
            finder.note("batch", name, "value", [values])
        for name, values in step.named_parameters():
            finder.note("weights", name.removeprefix("network."), "value", [values])
        if finder.place is None:
            with finder.watching(step.network):
                with autocast(run, chosen):
                    losses = step(own | counts, number)
                    loss = total_loss(losses)
                for name, value in losses.items():
                    finder.note("loss", name, "value", [value])
                if finder.place is None:
                    finder.where = "backward"
                    (capture["scale"] / parts * loss).backward()
        if finder.place is not None:
            place, first = finder.place, part * rows
            break
        step.zero_grad(set_to_none=True)
    images = () if place is None else tuple(names[first + row] for row in place.images)
    return Replayed(capture["step"], place, images, weights, str(chosen))


def read_capture(path: Path) -> dict[str, Any]:
    """The content of a ``bad-batch.pt``.

    Raises:
        DataError: it is none, it is broken, or an earlier version wrote it.
    """
    fix = "wsss replay RUN  # a run that a bad loss has ended"

    def check(content: Any) -> None:
        if not isinstance(content, dict) or not isinstance(content.get("batch"), dict):
            raise DataError(f"{path}: is no batch of a bad loss", fix)
        if not content.keys() >= {*KEYS}:
            raise DataError(f"{path}: an earlier version wrote it, with the batch alone", "train again, then replay")
        if not _is_sound(content):
            raise DataError(f"{path}: its parts do not fit each other", fix)

    if not path.is_file():
        raise DataError(f"{path}: no such file", fix)
    try:
        content: dict[str, Any] = read_archive(path, check)
    except DataError:
        raise
    except Exception as error:  # torch raises many kinds for a broken file
        what, mend = strange(path) or (first_line(error), fix)
        raise DataError(f"{path}: cannot be read as a batch of a bad loss ({what})", mend) from error
    return content


def _is_sound(content: Mapping[str, Any]) -> bool:
    """Whether the types and sizes of a capture fit each other."""
    names, parts, batch = content["names"], content["parts"], content["batch"]
    return (
        isinstance(content["step"], int)
        and content["step"] > 0
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(parts, int)
        and 0 < parts <= MOST_PARTS
        and len(names) > 0
        and len(names) % parts == 0
        and {"image", "present"} <= batch.keys()
        and all(isinstance(value, Tensor) and value.ndim and len(value) == len(names) for value in batch.values())
        and batch["image"].ndim == 4
        and isinstance(content["making"], dict)
        and isinstance(content["scale"], float)
    )


def _step_of(capture: Mapping[str, Any], path: Path) -> tuple[TrainingStep, Config, int | None]:
    """The step with its weights, its config, and after which step these were if not those before the bad one."""
    content, since = capture.get("checkpoint"), None
    own = content is not None
    if content is None:
        last = find_checkpoint(path.parent)
        content = read_checkpoint(last)
        since = int(content.get("training", {}).get("step", 0))
    try:
        network, config = network_from(content, path)
        kind: Any = SegmentStep if network.decoder is not None else ClassifyStep
        step: TrainingStep = kind(network, config, **capture["making"])
        if step.average is not None:
            average = capture.get("average") if own else content["network"]
            if not own:
                step.network.load_state_dict(content["training"]["network"])
            if average is not None:
                step.average.network.load_state_dict(average)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path}: its parts do not fit each other ({first_line(error)})", "train it again") from error
    return step, config, since if since != capture["step"] - 1 else None
