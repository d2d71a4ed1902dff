"""The training loop: it owns steps, files, clocks and signals, and knows nothing of what is learnt.

A task (``classify.py``, ``segment.py``) supplies the losses of a batch and the validation figures. Everything random
in a step follows from the seed and the step number, so a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from wsss.config import Config, Optimisation
from wsss.data.augment import StepBatches, TrainingImages, mix
from wsss.data.loading import read_ahead
from wsss.device import autocast, num_workers
from wsss.errors import Interrupted, UsageError
from wsss.models.network import Network
from wsss.reporting import Reporter
from wsss.training.average import averaged
from wsss.training.checkpoint import read_checkpoint, save_checkpoint

LOG_EVERY = 10
"""Steps between two lines of metrics.jsonl; the only host synchronisation of a step."""

Batch = dict[str, Tensor]


class Task(Protocol):
    """What is learnt."""

    main_metric: str
    """Validation figure that chooses the best checkpoint; larger is better."""

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
    """How far a run has come."""

    step: int = 0
    best: float = -math.inf
    sums: dict[str, Tensor] = field(default_factory=dict)
    since: int = 0


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
        self.optimizer = make_optimizer(task, network)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.run.amp == "fp16")
        decay = task.section.ema
        self.ema = averaged(network, decay) if decay else None
        self.batches = StepBatches(len(images), task.section.batch_size, 0, 0, config.run.seed)
        self.total = self.batches.steps_per_epoch * task.section.epochs

    @property
    def shown(self) -> Network:
        """The weights that are validated and saved for use: the moving average where there is one."""
        return self.network if self.ema is None else cast(Network, self.ema.module)

    def train(self) -> None:
        """Run to the end from wherever the state is.

        Raises:
            Interrupted: asked to stop by a signal; the state is saved.
        """
        self.batches.start, self.batches.stop = self.state.step, self.total
        if self.state.step < self.total:
            self.reporter.begin("training", self.total, self.state.step)
            with stop_requests() as stop:
                self._steps(stop)
        self.reporter.say(f"trained {self.total} steps; {self.run / 'last.pt'} is the checkpoint of the last one")

    def resume(self) -> None:
        """Take up the state of ``last.pt``."""
        content = read_checkpoint(self.run / "last.pt")
        training = content["training"]
        self.shown.load_state_dict(content["network"])
        if self.ema is not None:
            self.network.load_state_dict(training["network"])
            self.ema.n_averaged.fill_(training["averaged"])
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        self.state = State(step=training["step"], best=training["best"])
        _drop_lines_after(self.run / "metrics.jsonl", self.state.step)

    def save(self, name: str = "last") -> None:
        """Write ``last.pt`` (all there is) or ``best.pt`` (weights alone)."""
        training: dict[str, Any] = {"step": self.state.step}
        if name == "last":
            training |= {
                "best": self.state.best,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            if self.ema is not None:
                training |= {"network": self.network.state_dict(), "averaged": int(self.ema.n_averaged)}
        save_checkpoint(self.run / f"{name}.pt", self.shown, self.config, training=training, task=self.extra)

    def _steps(self, stop: StopRequest) -> None:
        section, state = self.task.section, self.state
        saved = time.monotonic()
        clock = time.monotonic()
        for batch in self._loader():
            self._step(batch)
            if state.step % LOG_EVERY == 0 or state.step == self.total:
                seconds, clock = time.monotonic() - clock, time.monotonic()
                self._log(seconds)
            else:
                self.reporter.advance()
            epoch_ends = state.step % self.batches.steps_per_epoch == 0
            epoch = state.step // self.batches.steps_per_epoch
            if epoch_ends and (epoch % section.validate_every == 0 or state.step == self.total):
                self._validate(epoch)
                clock = time.monotonic()
            if epoch_ends or stop.asked or time.monotonic() - saved > section.checkpoint_minutes * 60:
                self.save()
                saved = time.monotonic()
            if stop.asked and state.step < self.total:
                raise Interrupted(
                    f"stopped by {stop.asked} after step {state.step} of {self.total}; the state is saved",
                    f"--resume {self.run}",
                )

    def _loader(self) -> Iterator[Batch]:
        pin_memory = self.device.type == "cuda"
        return read_ahead(self.images, num_workers(self.config.run), batches=self.batches, pin_memory=pin_memory)

    def _step(self, batch: Batch) -> None:
        state, section = self.state, self.task.section
        torch.manual_seed(mix(self.config.run.seed, state.step, 1))
        factor = self.task.lr_factor(state.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        batch["image"] = batch["image"].float() / 255
        self.network.train()
        with autocast(self.config.run, self.device):
            teacher = None if self.ema is None else self.shown
            losses = self.task.losses(self.network, batch, state.step, self.total, teacher)
            loss = torch.stack([value.float() for value in losses.values()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if section.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), section.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        for name, value in {"loss": loss, **losses}.items():
            state.sums[name] = state.sums.get(name, torch.zeros((), device=self.device)) + value.detach().float()
        state.since += 1
        state.step += 1

    def _log(self, seconds: float) -> None:
        state = self.state
        means = {name: float(value) / state.since for name, value in state.sums.items()}
        speed = state.since * self.batches.batch_size / seconds
        if not math.isfinite(means["loss"]):
            raise UsageError(
                f"the loss is {means['loss']} near step {state.step} of {self.run}",
                "start again with a lower --lr, or with --amp none",
            )
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        self._write({"step": state.step, "lr": lr, **means, "images_per_second": speed})
        self.reporter.advance(note=f"loss {means['loss']:.4f}  {speed:.1f} images/s")
        state.sums, state.since = {}, 0

    def _validate(self, epoch: int) -> None:
        shown = self.shown.eval()
        figures = self.task.validate(shown)
        if not figures:
            return
        self._write({"step": self.state.step, "epoch": epoch, "split": "val", **figures})
        self.reporter.say(f"epoch {epoch}: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        if figures[self.task.main_metric] > self.state.best:
            self.state.best = figures[self.task.main_metric]
            self.save("best")

    def _write(self, row: Mapping[str, Any]) -> None:
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")


def make_optimizer(task: Task, network: Network) -> torch.optim.Optimizer:
    """The optimiser of a task; matrices decay, norms and biases do not."""
    section = task.section
    groups: list[dict[str, Any]] = []
    for group in task.parameter_groups(network):
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        for decay, chosen in (
            (section.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            groups.append({"params": chosen, "lr": group["lr"], "base_lr": group["lr"], "weight_decay": decay})
    if section.optimizer == "sgd-poly":
        return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    return torch.optim.AdamW(groups, lr=section.lr)


def schedule(section: Optimisation, step: int, total: int) -> float:
    """Learning rate at a step relative to its base: warm-up, then cosine to 0 (AdamW) or (1 - t)^0.9 (SGD)."""
    if section.optimizer == "sgd-poly":
        return math.pow(1 - step / total, 0.9)
    warmup = section.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


class StopRequest:
    """Whether a signal asked the run to stop, and which."""

    def __init__(self) -> None:
        self.asked = ""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; a second Ctrl-C stops at once."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGUSR1 inside; the loop leaves at its next step."""
    stop = StopRequest()
    numbers = [signal.SIGTERM, signal.SIGINT] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
    try:
        before = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:  # not in the main thread: whoever runs it there handles signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drop_lines_after(path: Path, step: int) -> None:
    """Forget metrics that a killed run wrote after its last checkpoint."""
    if not path.is_file():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    temporary.replace(path)
