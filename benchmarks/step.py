"""Images/s of training steps: the cost of the double backward over plain supervision, and of the energy over both.

    python benchmarks/step.py -c voc-animals-cpu
    python benchmarks/step.py -c voc-deit-s --device cuda --batch 32 --profile

A step is the losses, their backward, the clipping and the optimiser. Weights, images and tags are random; the number of
tags follows VOC. In a round every kind of step gets the same batch. "end to end" makes its labels from class maps
alone; "taught" also uses the decoder of the moving average, as later steps of the default recipe do; "published" is the
published recipe (`ablation.py`) with this network. `--compile` adds the two steps without maps with blocks compiled by
`torch.compile`; the other steps cannot be compiled, because the tape records inside the blocks.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Annotated, Literal

import torch
import typer
from ablation import PUBLISHED
from measuring import Times, machine, ratio_cell, table, take_turns
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from wsss.config import Config, RunSection, resolve
from wsss.data.masks import IGNORE_INDEX
from wsss.machine import autocast, pick_device
from wsss.models.checkpoint import build_from
from wsss.training.classify import ClassifyStep
from wsss.training.loop import total_loss
from wsss.training.optimiser import make_optimizer
from wsss.training.segment import SegmentStep
from wsss.training.step import Batch, TrainingStep

TAG_SHARES = (0.60, 0.28, 0.09, 0.02, 0.01)
"""Shares of the images with 1, 2, ... tags: 1.56 tags an image."""

ENERGY_WEIGHT = 1e-7
ACTIVATIONS = {"cpu": [ProfilerActivity.CPU], "cuda": [ProfilerActivity.CPU, ProfilerActivity.CUDA]}
TOP = 15
"""Lines of the profile."""

SUPERVISED, CLASSIFY = "supervised", "classification"
END_TO_END, ENERGY, TAUGHT, PUBLISHED_STEP = "end to end", "end to end, energy", "end to end, taught", "published"
TARGETS = {END_TO_END: "1.80"}
ENERGY_TARGET = 0.15


@dataclass(frozen=True, slots=True)
class Step:
    """A training that takes one step at each call, on the next of its batches."""

    module: TrainingStep
    optimizer: torch.optim.Optimizer
    batches: Iterator[Batch]
    run: RunSection
    device: torch.device

    def __call__(self) -> None:
        """Take one step, as the training loop does."""
        self.module.train()
        with autocast(self.run, self.device):
            loss = total_loss(self.module(next(self.batches), 0))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.module.section.clip_norm:
            nn.utils.clip_grad_norm_(self.module.network.parameters(), self.module.section.clip_norm)
        self.optimizer.step()
        self.module.follow()


def random_batch(batch_size: int, classes: int, side: int, device: torch.device, seed: int) -> Batch:
    """Blurred images with grain, tags in numbers that follow VOC, and label maps of blobs of these tags."""
    generator = torch.Generator().manual_seed(seed)
    coarse_B3hw = torch.rand(batch_size, 3, 8, 8, generator=generator)
    images_B3HW = F.interpolate(coarse_B3hw, size=(side, side), mode="bilinear", align_corners=False)
    images_B3HW = (images_B3HW + 0.03 * torch.randn(images_B3HW.shape, generator=generator)).clamp(0, 1)
    present_BK = torch.zeros(batch_size, classes, dtype=torch.bool)
    counts_B = torch.multinomial(torch.tensor(TAG_SHARES), batch_size, replacement=True, generator=generator) + 1
    labels = []
    for b, count in enumerate(counts_B.tolist()):
        tags = torch.randperm(classes, generator=generator)[:count]
        present_BK[b, tags] = True
        kinds = torch.cat([torch.tensor([0, IGNORE_INDEX]), tags + 1]).to(torch.uint8)
        labels.append(blobs(kinds, side, generator))
    batch = {"image": images_B3HW, "present": present_BK, "label": torch.stack(labels)}
    return {name: value if name == "present" else value.to(device) for name, value in batch.items()}


def blobs(kinds: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """(side, side) label map of 8 x 8 squares, each of a random kind."""
    squares_hw = kinds[torch.randint(len(kinds), (8, 8), generator=generator)]
    return F.interpolate(squares_hw[None, None], size=(side, side), mode="nearest")[0, 0]


def make_step(
    kind: Literal["classify", "supervised", "end to end"],
    config: Config,
    batches: list[Batch],
    device: torch.device,
    *,
    taught: bool = False,
    compiled: bool = False,
) -> Step:
    """A training on these batches, with a new network and optimiser; with ``taught``, labels use the moving average."""
    share, ema = (0.0, config.segment.ema) if taught else (1.0, 0.0)
    segment = config.segment.model_copy(update={"maps_share": share, "ema": ema})
    config = config.model_copy(update={"segment": segment, "classify": config.classify.model_copy(update={"ema": 0.0})})
    classes = [f"class-{k}" for k in range(batches[0]["present"].shape[1])]
    network = build_from(config, classes, decoder=kind != "classify").to(device)
    if compiled:
        for block in network.backbone.vit.blocks:
            block.compile()
    module: TrainingStep = ClassifyStep(network, config, 1)
    if kind != "classify":
        module = SegmentStep(network, config, 1, labels_given=kind == "supervised", started=True)
    optimizer = make_optimizer(module.section, network, decoder_lr_factor=module.decoder_lr_factor)
    return Step(module, optimizer, cycle(batches), config.run, device)


def with_energy(config: Config, weight: float) -> Config:
    """The config with another weight of the dense energy."""
    return config.model_copy(update={"segment": config.segment.model_copy(update={"weight_energy": weight})})


def make_rivals(
    config: Config, published: Config, batches: list[Batch], device: torch.device, *, compiled: bool
) -> dict[str, Step]:
    """The kinds of step by name."""
    plain = with_energy(config, 0.0)
    energy = with_energy(config, config.segment.weight_energy or ENERGY_WEIGHT)
    rivals = {
        SUPERVISED: make_step("supervised", plain, batches, device),
        END_TO_END: make_step("end to end", plain, batches, device),
        ENERGY: make_step("end to end", energy, batches, device),
        TAUGHT: make_step("end to end", plain, batches, device, taught=True),
        PUBLISHED_STEP: make_step("end to end", published, batches, device),
        CLASSIFY: make_step("classify", plain, batches, device),
    }
    if compiled:
        rivals[f"{SUPERVISED}, compiled"] = make_step("supervised", plain, batches, device, compiled=True)
        rivals[f"{CLASSIFY}, compiled"] = make_step("classify", plain, batches, device, compiled=True)
    return rivals


def share_of_energy(times: dict[str, Times]) -> str:
    """Share of the step's time that the energy takes: median and range over the rounds."""
    pairs = zip(times[END_TO_END].seconds, times[ENERGY].seconds, strict=True)
    shares = [1 - without / whole for without, whole in pairs]
    return f"{100 * statistics.median(shares):.0f}% ({100 * min(shares):.0f}-{100 * max(shares):.0f})"


def print_profile(step: Step) -> None:
    """Print the operators that take most of the time of one step."""
    step()
    with profile(activities=ACTIVATIONS[step.device.type]) as recorded:
        step()
    order = f"self_{step.device.type}_time_total"
    print(recorded.key_averages().table(sort_by=order, row_limit=TOP, max_name_column_width=50))


def main(
    config: Annotated[str, typer.Option("-c", "--config", help="A preset or YAML file.")] = "voc-animals-cpu",
    assignments: Annotated[list[str] | None, typer.Option("--set")] = None,
    batch: Annotated[int, typer.Option(help="Images a step; 0 takes that of the config.")] = 0,
    classes: int = 20,
    device: str = "auto",
    rounds: int = 8,
    compiled: Annotated[bool, typer.Option("--compile", help="Also time compiled networks.")] = False,
    profiled: Annotated[bool, typer.Option("--profile", help="Also print where the time goes.")] = False,
) -> None:
    """Print one table."""
    settings = resolve(config, assignments or (), {"model.weights": "none"})
    chosen, size = pick_device(device), batch or settings.segment.batch_size
    batches = [random_batch(size, classes, settings.augment.size, chosen, seed) for seed in range(rounds + 1)]
    published = resolve(config, [*(assignments or ()), *PUBLISHED], {"model.weights": "none"})
    rivals = make_rivals(settings, published, batches, chosen, compiled=compiled)
    times = take_turns(rivals, rounds, chosen)
    tags = statistics.mean(float(batch["present"].sum()) / size for batch in batches)
    side, backbone = settings.augment.size, settings.model.backbone
    print(f"### Steps of {config}: {backbone}, {size} images of {side} px, {tags:.2f} of {classes} classes each, "
          f"amp {settings.run.amp} ({machine(chosen)})\n")  # fmt: skip
    rows = [
        [
            name,
            f"{size / taken.median:.1f}",
            ratio_cell(taken, times[SUPERVISED]),
            TARGETS.get(name, ""),
        ]
        for name, taken in times.items()
    ]
    print(table(["step", "images/s", "time / supervised", "target"], rows))
    print(f"\nDense energy: {share_of_energy(times)} of the step, target {100 * ENERGY_TARGET:.0f}%.", flush=True)
    if profiled:
        for name in (END_TO_END, ENERGY):
            print(f"\n{name}:\n")
            print_profile(rivals[name])


if __name__ == "__main__":
    typer.run(main)
