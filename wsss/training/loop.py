"""The training loop: it owns steps, files, clocks and signals, and knows nothing of what is learnt.

A task (``classify.py``, ``segment.py``) supplies the losses of a batch and the validation figures. Everything random
in a step follows from the seed and the step number, so a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from wsss.config import Config, Optimisation
from wsss.data.augment import Key, StepBatches, TrainingImages, mix
from wsss.data.loading import collate, read_ahead
from wsss.data.records import TaggedSet
from wsss.errors import Interrupted, MachineError
from wsss.files import DiskError, sync_file, sync_folder
from wsss.machine import autocast, num_workers
from wsss.models.checkpoint import part_of, read_checkpoint, save_checkpoint
from wsss.models.network import Network
from wsss.outputs.provenance import chosen_on, joined
from wsss.reporting import Reporter
from wsss.stopping import StopRequest, stop_requests
from wsss.training.average import MovingAverage
from wsss.training.bad_loss import BadStep, LossWatch, save_batch
from wsss.training.metrics import METRICS, append_row, drop_rows_after
from wsss.training.optimiser import make_optimizer
from wsss.training.pace import Pace

LOG_EVERY = 10
"""Steps between two lines of metrics.jsonl: there, and to validate and to save, the host waits for a GPU; at every step
it does so only where bad steps are skipped or fp16 scales the loss."""
FEW_STEPS = 200
"""Fewer teach a network little; 390 is what a round of the smallest measured recipe takes (benchmarks/RESULTS.md)."""

Batch = dict[str, Tensor]


class Task(Protocol):
    """What is learnt."""

    main_metric: str
    """Validation figure that chooses the best checkpoint; larger is better."""
    validation: TaggedSet | None
    """What is validated on, if anything."""

    @property
    def section(self) -> Optimisation:
        """Schedule and optimiser."""

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        """Optimiser groups with their own ``lr``."""

    def lr_factor(self, step: int, total: int) -> float:
        """Learning rate at a step relative to the group's own."""

    def losses(
        self, network: Network, batch: Batch, step: int, total: int, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Weighted loss terms; their sum is minimised. The teacher is the moving average, where one is kept."""

    def validate(self, network: Network) -> dict[str, float]:
        """Figures on the validation split; empty where there is none."""


@dataclass(slots=True)
class State:
    """How far a run has come.

    Attributes:
        step: steps taken.
        best: main figure of the best validation.
        sums: of each loss term since the last line of metrics.
        since: steps in them.
        skipped: bad steps since the last line of metrics.
        in_a_row: bad steps since the last good one.
    """

    step: int = 0
    best: float = -math.inf
    sums: dict[str, Tensor] = field(default_factory=dict)
    since: int = 0
    skipped: int = 0
    in_a_row: int = 0


class Loop:
    """One training run in one folder."""

    def __init__(
        self,
        run: Path,
        config: Config,
        network: Network,
        task: Task,
        images: TrainingImages,
        *,
        device: torch.device,
        reporter: Reporter,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.network = network.to(device)
        self.task = task
        self.images = images
        self.device = device
        self.reporter = reporter
        self.extra = dict(extra or {})
        self.state = State()
        self.optimizer = make_optimizer(task.section, task.parameter_groups(network))
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.run.amp == "fp16")
        decay = task.section.ema
        self.ema = MovingAverage(network, decay) if decay else None
        self.batches = StepBatches(len(images), task.section.batch_size, 0, 0, config.run.seed)
        self.total = self.batches.steps_per_epoch * task.section.epochs
        self.watch = LossWatch(device, task.section.on_bad_loss)

    @property
    def shown(self) -> Network:
        """The weights that are validated and saved for use: the moving average where there is one."""
        return self.network if self.ema is None else self.ema.network

    def train(self) -> None:
        """Run to the end from wherever the state is.

        Raises:
            Interrupted: asked to stop by a signal; the state is saved.
            BadLoss: the loss is no number; the batch is saved.
            MachineError: the disk refuses; what was saved before is whole.
        """
        self.batches.start, self.batches.stop = self.state.step, self.total
        if self.state.step == 0 and self.total < FEW_STEPS:
            each = self.batches.steps_per_epoch
            epochs = math.ceil(FEW_STEPS / each)
            self.reporter.say(f"{self.total} steps are few to learn from; --epochs {epochs} makes them {epochs * each}")
        if self.state.step < self.total:
            try:
                with stop_requests() as stop:
                    if self.state.step == 0:
                        self.save()
                    self.reporter.begin("training", self.total, self.state.step)
                    self._steps(stop)
            except DiskError as error:
                raise MachineError(error.problem, f"{error.remedy}, then --resume {self.run}") from error
        self.reporter.say(f"trained {self.total} steps; {self.run / 'last.pt'} is the checkpoint of the last one")

    def resume(self) -> None:
        """Take up the state of ``last.pt``."""
        content = read_checkpoint(self.run / "last.pt")
        training = part_of(content, "training", self.run)
        self.shown.load_state_dict(content["network"])
        if self.ema is not None:
            self.network.load_state_dict(training["network"])
            self.ema.steps = training["averaged"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        window = training.get("window", {})
        sums = {name: value.to(self.device) for name, value in window.get("sums", {}).items()}
        self.state = State(**{"step": training["step"], "best": training["best"], **window, "sums": sums})
        drop_rows_after(self.run, self.state.step)

    def save(self, name: str = "last") -> None:
        """Write ``last.pt`` (all there is) or ``best.pt`` (weights alone); metrics up to it reach the disk first."""
        self._stop_if_bad()
        state = self.state
        training: dict[str, Any] = {"step": state.step}
        supervision = self.shown.supervision
        if name == "best" and self.task.validation is not None:
            supervision = joined(supervision, [chosen_on(self.task.validation.split)])
        if name == "last":
            window = {"sums": state.sums, "since": state.since, "skipped": state.skipped, "in_a_row": state.in_a_row}
            training |= {
                "best": state.best,
                "window": window,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            if self.ema is not None:
                training |= {"network": self.network.state_dict(), "averaged": self.ema.steps}
        sync_file(self.run / METRICS)
        beside = {"supervision": list(supervision), "training": training, "task": self.extra}
        save_checkpoint(self.run / f"{name}.pt", self.shown, self.config, **beside)
        sync_folder(self.run)

    def _steps(self, stop: StopRequest) -> None:
        section, state = self.task.section, self.state
        saved = time.monotonic()
        pace = Pace(self.device)
        for batch in self._batches(stop):
            self._step(batch)
            pace.steps += 1
            if state.step % LOG_EVERY == 0 or state.step == self.total:
                self._log(pace)
            else:
                self.reporter.advance()
            epoch_ends = state.step % self.batches.steps_per_epoch == 0
            epoch = state.step // self.batches.steps_per_epoch
            if epoch_ends and (epoch % section.validate_every == 0 or state.step == self.total):
                with pace.paused():
                    self._validate(epoch)
            by_time = time.monotonic() - saved > section.checkpoint_minutes * 60
            asked = bool(stop.asked)  # a signal after the checkpoint waits for the next one
            if epoch_ends or by_time or asked:
                with pace.paused():
                    self.save()
                saved = time.monotonic()
            if asked and state.step < self.total:
                self._leave(stop.asked)

    def _batches(self, stop: StopRequest) -> Iterator[Batch]:
        try:
            yield from self._loader()
        except Interrupted:  # while a batch was waited for, the signal reached the process that makes it
            self.save()
            self._leave(stop.asked or "SIGTERM")

    def _leave(self, signal_name: str) -> NoReturn:
        raise Interrupted(
            f"stopped by {signal_name} after step {self.state.step} of {self.total}; the state is saved",
            f"--resume {self.run}",
        )

    def _loader(self) -> Iterator[Batch]:
        pin_memory = self.device.type == "cuda"
        return read_ahead(self.images, num_workers(self.config.run), batches=self.batches, pin_memory=pin_memory)

    def _step(self, batch: Batch) -> None:
        state = self.state
        torch.manual_seed(mix(self.config.run.seed, state.step, 1))
        factor = self.task.lr_factor(state.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        batch = {  # tags stay on the host, where they decide how many passes there are
            name: value if name == "present" else value.to(self.device, non_blocking=True)
            for name, value in batch.items()
        }
        batch["image"] = batch["image"].float() / 255
        self.network.train()
        with autocast(self.config.run, self.device):
            teacher = None if self.ema is None else self.shown
            losses = self.task.losses(self.network, batch, state.step, self.total, teacher)
            loss = torch.stack([value.float() for value in losses.values()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        norm = self._clip()
        terms = {name: value.detach().float() for name, value in {"loss": loss, **losses}.items()}
        watched = terms["loss"] if self.scaler.is_enabled() else terms["loss"] + norm  # a scaler skips bad gradients
        if self.watch.allows(watched, state.step):
            self._learn(terms)
        else:
            self._bad_step(terms)
        state.step += 1

    def _clip(self) -> Tensor:
        """Bound the gradient where a bound is set; its norm before that, a scalar on the device."""
        bound = self.task.section.clip_norm
        if bound:
            self.scaler.unscale_(self.optimizer)
            return nn.utils.clip_grad_norm_(self.network.parameters(), bound)
        gradients = (parameter.grad for parameter in self.network.parameters())
        return nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])

    def _learn(self, terms: Mapping[str, Tensor]) -> None:
        state = self.state
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.follow(self.network)
        for name, value in terms.items():
            state.sums[name] = state.sums.get(name, torch.zeros((), device=self.device)) + value
        state.since += 1
        state.in_a_row = 0

    def _bad_step(self, terms: Mapping[str, Tensor]) -> None:
        """Save the batch and tell of it; then the step is passed over, or the run ends here."""
        state = self.state
        state.skipped += 1
        state.in_a_row += 1
        self.scaler.update(self.scaler.get_scale())  # forgets the step; a bad loss says nothing about its scale
        bad = self._save_batch(state.step, {name: float(value) for name, value in terms.items()})
        if not self.watch.skips(state.in_a_row):
            raise bad.error(self.run, self._section_name())
        self.reporter.say(f"skipped a step: {bad.what()}")

    def _stop_if_bad(self) -> None:
        """Stop where a step went bad that was not looked at when it was taken."""
        step = self.watch.first_bad()
        if step is not None:
            raise self._save_batch(step, {}).error(self.run, self._section_name())

    def _save_batch(self, step: int, terms: dict[str, float]) -> BadStep:
        """Read the batch of a step again: it follows from the seed and the step."""
        keys = self._keys(step)
        names = [self.images.tagged.records[index].name for _, index in keys]
        batch = collate([self.images[key] for key in keys])
        return save_batch(self.run, step + 1, names, terms, batch)

    def _keys(self, step: int) -> list[Key]:
        batches = self.batches
        return next(iter(StepBatches(batches.length, batches.batch_size, step, step + 1, batches.seed)))

    def _section_name(self) -> str:
        return "classify" if self.task.section is self.config.classify else "segment"

    def _log(self, pace: Pace) -> None:
        self._stop_if_bad()
        state = self.state
        row: dict[str, Any] = {"step": state.step, "lr": max(group["lr"] for group in self.optimizer.param_groups)}
        row |= {name: float(value) / state.since for name, value in state.sums.items()}
        if state.skipped:
            row["skipped"] = state.skipped
        speed = pace.read() * self.batches.batch_size
        append_row(self.run, {**row, "images_per_second": speed})
        self.reporter.advance(note=f"loss {row.get('loss', math.nan):.4f}  {speed:.1f} images/s")
        state.sums, state.since, state.skipped = {}, 0, 0

    def _validate(self, epoch: int) -> None:
        self._stop_if_bad()
        shown, validation = self.shown.eval(), self.task.validation
        if validation is None:
            return
        figures = self.task.validate(shown)
        append_row(self.run, {"step": self.state.step, "epoch": epoch, "split": validation.split, **figures})
        self.reporter.say(f"epoch {epoch}: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        if figures[self.task.main_metric] > self.state.best:
            self.state.best = figures[self.task.main_metric]
            self.save("best")
