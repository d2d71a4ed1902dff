"""`wsss run --budget`: the largest training that fits into a time, from the measured speed of this machine.

Times are estimates: of a few training steps of the real network, times the images that the stages put through it. What
they leave out (decoding on a slow disk, other work on the machine) is what ``SPARE`` is for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from wsss.config import Config, config_from_plain
from wsss.data.lessons import FEW_STEPS, epochs_of, steps_in_all
from wsss.errors import UsageError
from wsss.models.network import build_network
from wsss.training.head import steps_after_head

SMALL, TINY = "deit_small_patch16_224", "deit_tiny_patch16_224"
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
FEATURES, UPPER, END_TO_END, LABEL = 0.35, 0.7, 1.5, 6.0
"""Time of an image relative to that in a step that trains all weights on label maps: its features alone, a step of the
upper half of the blocks, a step end to end (measured: 1.46, benchmarks/results/speed.md), and its pseudo label at 10/7
of the side, mirrored, with refinement."""
SPARE = 1.25
"""Factor for reading, validation, masks and the report."""
BATCH, STEPS = 4, 3
"""Images of a measured step, and how many are timed after one that is not."""


@dataclass(frozen=True, slots=True)
class Option:
    """A training that could be chosen: dotted keys that differ from the config, and how it is called."""

    keys: tuple[tuple[str, Any], ...]
    words: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        option: the largest that fits, or the smallest where none does.
        seconds: its estimate.
        better: the next larger one and its estimate; None where the largest fits.
        fits: whether the estimate is within the budget.
    """

    option: Option
    seconds: float
    better: tuple[Option, float] | None
    fits: bool

    def message(self, asked: str) -> str:
        """One line that says what was chosen, and what more time would buy."""
        said = f"--budget {asked}: {self.option.words}, about {spoken(self.seconds)}"
        if not self.fits:
            said += "; nothing smaller is worth training, so it takes longer than asked"
        if self.better is not None:
            said += f"; {self.better[0].words} would take about {spoken(self.better[1])}"
        return said


def budget_seconds(text: str) -> float:
    """Seconds of "2h", "90m", "1.5h", "1h30m" or "45min".

    Raises:
        UsageError: it is no time above 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    whole = re.sub(r"\s", "", "".join(number + unit for number, unit in parts))
    known = bool(parts) and all(unit in UNITS for _, unit in parts) and whole == re.sub(r"\s", "", text.lower())
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts) if known else 0.0
    if seconds <= 0:
        raise UsageError(f"--budget {text}: expected a time above 0", "--budget 2h, --budget 90m or --budget 1h30m")
    return seconds


def spoken(seconds: float) -> str:
    """A time in words: "40 min", "2.5 h"."""
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def options_for(config: Config, images: int) -> list[Option]:
    """The trainings that may be chosen, the largest first; keys that were given stay as they are.

    Args:
        config: of the whole way.
        images: of the training split.
    """
    model, size = config.model.model_fields_set, config.augment.model_fields_set
    free_backbone, free_size = not {"backbone", "weights"} & model, "size" not in size
    rounds_given, epochs_given = ("rounds" in (given := config.segment.model_fields_set)), "epochs" in given
    epochs = epochs_of(images, config.segment)
    least = max(1, -(-FEW_STEPS * config.segment.batch_size // max(1, images)))
    made: list[Option] = []

    def add(backbone: str, rounds: int, share: float, side: int) -> None:
        keys: dict[str, Any] = {"model.backbone": backbone} if free_backbone else {}
        keys |= {} if rounds_given else {"segment.rounds": rounds}
        fewer = max(min(epochs, least), round(epochs * share))
        keys |= {} if epochs_given else {"segment.epochs": fewer}
        keys |= {"augment.size": side} if free_size else {}
        said = (backbone if free_backbone else config.model.backbone).split("_patch")[0]
        named = resolved(config, tuple(keys.items()))
        words = f"{said} at {named.augment.size} px, {_rounds(named.segment.rounds)} of {_epochs(named, images)}"
        option = Option(tuple(keys.items()), words)
        if option not in made:
            made.append(option)

    side = config.augment.size
    add(SMALL, config.segment.rounds, 1, side)
    add(TINY, config.segment.rounds, 1, side)
    add(TINY, 1, 1, side)
    add(TINY, 1, 0.5, side)
    add(TINY, 1, 0.5, min(side, 160))
    return made


def choose(options: Sequence[Option], seconds: Sequence[float], budget: float) -> Choice:
    """The first of the options, the largest first, whose seconds are within the budget; else the quickest."""
    fits = [i for i, one in enumerate(seconds) if one <= budget]
    at = fits[0] if fits else min(range(len(seconds)), key=seconds.__getitem__)
    larger = [i for i in range(at) if seconds[i] > seconds[at]]
    better = (options[larger[-1]], seconds[larger[-1]]) if larger else None
    return Choice(options[at], seconds[at], better, bool(fits))


def images_through(config: Config, images: int) -> float:
    """Images through a step of the whole network that the stages of `wsss run` are worth.

    Args:
        config: of the training.
        images: of the training split.
    """
    classify, segment = config.classify, config.segment
    steps, each = steps_in_all(images, classify), max(1, images // classify.batch_size)
    if classify.finetune == "all" or (classify.finetune == "auto" and config.model.weights == "none"):
        first = float(steps * classify.batch_size)
    else:
        mode = "top" if classify.finetune == "auto" else classify.finetune
        first = FEATURES * images + UPPER * steps_after_head(steps, each, mode) * classify.batch_size
    round_ = steps_in_all(images, segment) * segment.batch_size
    later = (segment.rounds - 1) * (round_ + LABEL * images)
    return SPARE * (first + END_TO_END * round_ + later)


def step_seconds(config: Config, device: torch.device) -> float:
    """Seconds of an image in a step that trains all weights of the network and its decoder; weights are random."""
    side = config.augment.size
    network = build_network(
        config.model.backbone,
        ("one", "two"),
        readout=config.model.readout,
        decoder=True,
        decoder_channels=config.model.decoder_channels,
        vit=config.model.vit,
    ).to(device)
    images_B3HW = torch.rand(BATCH, 3, side, side, device=device)
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        features = network.features(images_B3HW, taps=True)
        logits_BChw = network.decode_grid(features)
        target_Bhw = torch.zeros(logits_BChw[:, 0].shape, dtype=torch.long, device=device)
        (F.cross_entropy(logits_BChw, target_Bhw) + network.readout(features).square().mean()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:]) / BATCH


def planned(
    config: Config,
    images: int,
    budget: float,
    device: torch.device,
    measure: Callable[[Config, torch.device], float] = step_seconds,
) -> Choice:
    """Measure each backbone and side that is in question, and choose."""
    options = options_for(config, images)
    speeds: dict[tuple[str, int], float] = {}
    seconds = []
    for option in options:
        one = resolved(config, option.keys)
        key = (one.model.backbone, one.augment.size)
        if key not in speeds:
            speeds[key] = measure(one, device)
        seconds.append(speeds[key] * images_through(one, images))
    return choose(options, seconds, budget)


def resolved(config: Config, keys: Sequence[tuple[str, Any]]) -> Config:
    """The config with some dotted keys changed."""
    tree = config.model_dump(exclude_unset=True)
    for key, value in keys:
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return config_from_plain(tree)


def _rounds(count: int) -> str:
    return f"{count} round{'s' if count > 1 else ''}"


def _epochs(config: Config, images: int) -> str:
    count = epochs_of(images, config.segment)
    return f"{count} epoch{'s' if count > 1 else ''}"
