"""The training loop: it takes the steps, and between them logs, saves, validates and stops.

The losses of a step are in `wsss.training.step`, the content of a checkpoint in `wsss.training.saving`. All that
is random in a step follows from the seed and the number of the step, so a resumed run continues as if never stopped.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss.config import Config, Optimisation
from wsss.data.augment import StepBatches, TrainingImages, mix
from wsss.data.lessons import FEW_STEPS, epochs_of, steps_in_all
from wsss.data.loading import LoaderDied, read_ahead
from wsss.errors import Interrupted, MachineError, UsageError
from wsss.files import DiskError
from wsss.machine import autocast, num_workers
from wsss.models.checkpoint import content_of, part_of
from wsss.models.convolution import batch_norms
from wsss.models.network import Network
from wsss.reporting import Reporter
from wsss.stopping import StopRequest, stop_requests
from wsss.training.bad_loss import BadSteps, LossWatch
from wsss.training.metrics import append_row, drop_rows_after
from wsss.training.optimiser import make_optimizer, set_rates
from wsss.training.pace import Pace
from wsss.training.ranks import ALONE, Ranks
from wsss.training.saving import State, restore, save_best, save_last
from wsss.training.step import Batch, TrainingStep
from wsss.training.twice import Computed, ComputesWrongly, difference_of, is_exact
from wsss.training.validation import Validation, is_due

LOG_EVERY = 10
"""Steps between two lines of metrics.jsonl. Logging, validating and saving synchronise the device; a step does so only
where bad steps are skipped or fp16 scales the loss."""
MANY_EPOCHS = 100
"""More teach a network its images by heart, if they are also more than ten times FEW_STEPS."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run: its folder, its config, where it computes and reports, and the processes that train it."""

    run: Path
    config: Config
    device: torch.device
    reporter: Reporter
    ranks: Ranks = ALONE


class Loop:
    """One training.

    Args:
        context: the run.
        step: the training step; moved to the device.
        images: the samples it learns from.
        validation: how it is validated, if at all.
        task: plain values that the command needs to resume, written into each checkpoint.

    Raises:
        UsageError: a batch cannot be divided among the processes and the parts that each computes.
    """

    def __init__(
        self,
        context: RunContext,
        step: TrainingStep,
        images: TrainingImages,
        validation: Validation | None,
        task: Mapping[str, Any] | None = None,
    ) -> None:
        self.context = context
        self.run, self.config = context.run, context.config
        self.device, self.reporter = context.device, context.reporter
        self.ranks = context.ranks
        self.step = step.to(context.device)
        self.step.ranks = self.ranks
        self.images = images
        self.validation = validation
        self.task = dict(task or {})
        section = step.section
        self.section = section
        self.state = State()
        self.optimizer = make_optimizer(
            section, step.network, decoder_lr_factor=step.decoder_lr_factor, layer_decay=step.layer_decay
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.config.run.amp == "fp16")
        self.batches = StepBatches(len(images), section.batch_size, 0, 0, self.config.run.seed)
        self.batches.part, self.batches.parts = self.ranks.rank, self.ranks.world
        self._check_parts()
        self._wrapped: tuple[bool, nn.Module] | None = None
        self.total = step.total
        name = "classify" if section is self.config.classify else "segment"
        watch = LossWatch(self.device, section.on_bad_loss)
        self.bad_steps = BadSteps(self.run, images, self.batches, name, watch, self.ranks, self._replayable)
        self.pace = Pace(self.device)
        self.saved_at = time.monotonic()

    @property
    def shown(self) -> Network:
        """The network that is validated and saved for use: the moving average where there is one."""
        return self.step.shown

    def train(self) -> None:
        """Train from the current step to the last.

        Raises:
            Interrupted: a signal asked to stop; the state is saved.
            BadLoss: the loss is not finite; the batch is saved.
            MachineError: the disk cannot be written; the last checkpoint is complete.
        """
        self._remark_on_steps()
        finished = self._is_finished()
        if not finished:
            try:
                with stop_requests() as stop:
                    self._train(stop)
            except DiskError as error:
                raise MachineError(error.problem, f"{error.remedy}, then --resume {self.run}") from error
        if self.total == 0:
            self.reporter.say(f"the head alone is trained; {self.run / 'last.pt'} is the checkpoint")
            return
        done = f"trained {self.total} steps{' before; nothing is left to do' if finished else ''}"
        self.reporter.say(f"{done}; {self.run / 'last.pt'} is the checkpoint of the last one")

    def resume(self, content: Mapping[str, Any]) -> None:
        """Continue from the content of ``last.pt``.

        Raises:
            DataError: it holds weights alone.
        """
        training = part_of(content, "training", self.run)
        self.state, self.optimizer = restore(content, training, self.step, self.scaler, self.device)
        self.ranks.lead(partial(drop_rows_after, self.run, self.state.step, validated=not self._validation_is_due()))

    def save(self) -> None:
        """Write ``last.pt``."""
        self.bad_steps.stop_if_any()
        content = (self.run, self.config, self.task, self.step, self.optimizer, self.scaler, self.state)
        with self.pace.paused():
            self.ranks.lead(lambda: save_last(*content))
        self.saved_at = time.monotonic()

    def _train(self, stop: StopRequest) -> None:
        if self.state.step == 0:
            self.save()
        self.reporter.begin("training", self.total, self.state.step)
        self.pace.restart()
        self.saved_at = time.monotonic()
        try:
            self._validate_if_due(stop)  # a run that was stopped between a step and its validation
            with closing(self._batches()) as batches:  # a signal while it ends the loader is not lost
                while self.state.step < self.total:
                    batch = self.ranks.agree(lambda: self._next(batches, stop))
                    self._step(batch)
                    self._log()
                    self._save_if_due()
                    self._validate_if_due(stop)
        except Interrupted as error:  # asked to stop here, in a validation, or by the end of a loader process
            self.save()
            raise Interrupted(
                f"stopped by {stop.asked or 'SIGTERM'} after step {self.state.step} of {self.total}; "
                "the state is saved",
                f"--resume {self.run}",
            ) from error

        except LoaderDied as error:
            self.save()
            raise MachineError(
                f"{error.problem}; the state after step {self.state.step} of {self.total} is saved",
                f"--resume {self.run} --workers 1",
            ) from error

    def _batches(self) -> Generator[Batch]:
        self.batches.start, self.batches.stop = self.state.step, self.total
        pin_memory = self.device.type == "cuda"
        return read_ahead(self.images, num_workers(self.config.run), batches=self.batches, pin_memory=pin_memory)

    def _next(self, batches: Iterator[Batch], stop: StopRequest) -> Batch:
        """The next batch, unless it was asked to stop."""
        stop.leave_if_asked("", "")  # the message follows in `_train`
        batch = next(batches)
        stop.leave_if_asked("", "")
        return batch

    def _step(self, batch: Batch) -> None:
        """Losses, backward, clipping, optimiser, moving average."""
        number = self.state.step
        set_rates(self.optimizer, self.step.lr_factor(number))
        self.step.warm_up(number)
        batch = to_device(batch, self.device)
        own = self._backward(batch, number)
        self._verify_if_due(batch, number, own)
        norm = self._clip()
        terms = dict(zip(own, self.ranks.mean(torch.stack([*own.values()])), strict=True))
        # A scaler skips steps with bad gradients itself, so under fp16 the loss alone decides.
        watched = terms["loss"] if self.scaler.is_enabled() else terms["loss"] + norm
        if self.bad_steps.watch.allows(watched, number):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.step.follow()
            self._count(terms)
        else:
            self._skip_or_stop(terms, own["loss"])
        self.state.step += 1

    def _verify_if_due(self, batch: Batch, number: int, losses: Mapping[str, Tensor]) -> None:
        """Compute one step in ``verify_steps`` again and compare; the step keeps what it computed first.

        Raises:
            ComputesWrongly: the two differ in some process.
        """
        every = self.config.run.verify_steps
        if not every or (number + 1) % every:
            return
        network, step = self.step.network, Computed.of(losses, self.step.network)
        first = step
        if self.ranks.world > 1:  # after the mean over the processes nobody would know whose gradient was wrong
            first = Computed.of(self._backward(batch, number, alone=True), network)
        again = Computed.of(self._backward(batch, number, alone=True), network)
        step.give(network)
        found = difference_of(first, again, exact=is_exact(self.device))
        name = f"{self.device} of {platform.node()}" + (f" (rank {self.ranks.rank})" if self.ranks.world > 1 else "")
        self.ranks.agree(partial(self._refuse_device, name, number, found))

    def _refuse_device(self, name: str, number: int, found: str | None) -> None:
        if found is not None:
            raise ComputesWrongly(
                f"{name} computes wrongly: step {number + 1} was computed twice from the same state, and {found}",
                f"--resume {self.run} on another device or machine; have this one's memory and processor tested",
            )

    def _backward(self, batch: Batch, number: int, *, alone: bool = False) -> dict[str, Tensor]:
        """The gradients of a step, computed in ``accumulate`` parts; returns the mean losses of this process.

        With ``alone`` the gradients are those of this process, not the mean of all.
        """
        parts = self.section.accumulate
        counts = {name: self.ranks.mean(count) / parts for name, count in self.step.counts(batch).items()}
        wrapped = self._wrap(number)
        self.step.train()
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        for part in range(parts):
            torch.manual_seed(mix(self.config.run.seed, number, 1))
            self.step.take_part(self.ranks.rank * parts + part, self.ranks.world * parts)
            rows = {name: values.chunk(parts)[part] for name, values in batch.items()}
            with nullcontext() if part == parts - 1 and not alone else self.ranks.unsynced(wrapped):
                with autocast(self.config.run, self.device):
                    losses = wrapped(rows | counts, number)
                    loss = total_loss(losses)
                self.scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": loss, **losses}.items():
                terms[name] = terms.get(name, 0) + value.detach().float() / parts
        return terms

    def _wrap(self, number: int) -> nn.Module:
        """The step as all processes take it together; anew where other parameters get gradients than before."""
        unused = self.step.leaves_unused(number)
        if self._wrapped is None or self._wrapped[0] != unused:
            self._wrapped = None  # the old one must let go of the parameters first
            self._wrapped = unused, self.ranks.wrap(self.step, unused=unused)
        return self._wrapped[1]

    def _clip(self) -> Tensor:
        """Clip the gradient where the config bounds it; returns its norm before that, a scalar on the device."""
        parameters = self.step.network.parameters()
        if self.section.clip_norm:
            self.scaler.unscale_(self.optimizer)
            return nn.utils.clip_grad_norm_(parameters, self.section.clip_norm)
        return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])

    def _count(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of a good step to the sums of the next line of metrics."""
        state = self.state
        for name, value in terms.items():
            state.sums[name] = state.sums.get(name, torch.zeros((), device=self.device)) + value
        state.since += 1
        state.in_a_row = 0

    def _skip_or_stop(self, terms: Mapping[str, Tensor], own: Tensor) -> None:
        """Leave the weights as they are; BadLoss where the run must end.

        Args:
            terms: the losses.
            own: the loss of this process's images.
        """
        state = self.state
        state.skipped += 1
        state.in_a_row += 1
        self.scaler.update(self.scaler.get_scale())  # a bad loss says nothing about the scale: keep it
        figures = {name: float(value) for name, value in terms.items()}
        is_bad = self.ranks.gather(not math.isfinite(own))
        self.reporter.say(self.bad_steps.handle(state.step, figures, state.in_a_row, is_bad))

    def _replayable(self) -> dict[str, Any]:
        """What `wsss.training.replay` needs of a bad step beside its batch; the weights where they are those before it.

        Where bad steps are found later, the weights have changed since, and ``last.pt`` has the nearest good ones.
        """
        average = self.step.average
        kept: dict[str, Any] = {}
        if self.bad_steps.watch.looks:
            kept["checkpoint"] = content_of(self.step.network, self.config)
            kept["average"] = None if average is None else average.network.state_dict()
        parts = self.ranks.world * self.section.accumulate
        return {"parts": parts, "making": dict(self.step.making), "scale": float(self.scaler.get_scale()), **kept}

    def _log(self) -> None:
        """Count the step; every LOG_EVERY steps write the means of the losses and the speed."""
        state = self.state
        self.pace.steps += 1
        if state.step % LOG_EVERY and state.step < self.total:
            self.reporter.advance()
            return
        self.bad_steps.stop_if_any()
        row: dict[str, Any] = {"step": state.step, "lr": max(group["lr"] for group in self.optimizer.param_groups)}
        row |= {name: float(value) / state.since for name, value in state.sums.items()}
        if state.skipped:
            row["skipped"] = state.skipped
        speed = self.pace.read() * self.batches.batch_size
        self.ranks.lead(partial(append_row, self.run, {**row, "images_per_second": speed}))
        self.reporter.advance(note=f"loss {row.get('loss', math.nan):.4f}  {speed:.1f} images/s")
        state.sums, state.since, state.skipped = {}, 0, 0

    def _save_if_due(self) -> None:
        """Save after the last step, and where the last checkpoint is too old."""
        too_old = self.ranks.any(self._seconds_unsaved() > self.section.checkpoint_minutes * 60)
        if too_old or self.state.step == self.total:
            self.save()

    def _seconds_unsaved(self) -> float:
        """Since the last checkpoint of this process."""
        return time.monotonic() - self.saved_at

    def _validate_if_due(self, stop: StopRequest) -> None:
        """Validate at the end of an epoch; a stop request ends the validation, and the resumed run repeats it."""
        state, validation = self.state, self.validation
        if validation is None or not self._validation_is_due():
            return
        self.ranks.agree(lambda: stop.leave_if_asked("", ""))
        self.bad_steps.stop_if_any()
        with self.pace.paused():
            figures = validation.figures(self.shown.eval(), lambda: stop.leave_if_asked("", ""))
            epoch = state.step // self.batches.steps_per_epoch
            row = {"step": state.step, "epoch": epoch, "split": validation.split, **figures}
            self.ranks.lead(partial(append_row, self.run, row))
            self.reporter.say(f"epoch {epoch}: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
            state.validated = state.step
            if math.isnan(figures[validation.main]) and state.best == -math.inf:
                what = f"{validation.main} of split {validation.split} is undefined: nothing in it can be scored"
                self.reporter.say(f"{what}, so there is no best.pt")
            if figures[validation.main] > state.best:
                state.best = figures[validation.main]
                best = (self.run, self.config, self.task, self.step, state, validation.split)
                self.ranks.lead(lambda: save_best(*best))
            if state.step == self.total:
                self.save()

    def _validation_is_due(self) -> bool:
        state, each = self.state, self.batches.steps_per_epoch
        due = is_due(state.step, total=self.total, steps_per_epoch=each, every=self.section.validate_every)
        return self.validation is not None and due and state.validated < state.step

    def _is_finished(self) -> bool:
        return self.state.step >= self.total and not self._validation_is_due()

    def _check_parts(self) -> None:
        """Refuse a batch that cannot be divided equally."""
        size, world, parts = self.batches.batch_size, self.ranks.world, self.section.accumulate
        least = world * parts
        if least > 1 and batch_norms(self.step.network):
            raise UsageError(
                f"{self.step.network.backbone.name} has BatchNorm, which needs the statistics of the whole batch",
                "train in one process with --accumulate 1, or take --backbone convnext_tiny",
            )
        if size % least:
            among = [f"{world} processes"] * (world > 1) + [f"{parts} parts (accumulate)"] * (parts > 1)
            near = max(least, round(size / least) * least)
            fix = f"--batch-size {near if near <= len(self.images) else len(self.images) // least * least}"
            if len(self.images) < least:
                fix = "start fewer processes, or lower --accumulate"
            raise UsageError(f"a batch of {size} images cannot be divided equally into {' of '.join(among)}", fix)

    def _remark_on_steps(self) -> None:
        if self.state.step == 0 < self.total < FEW_STEPS:
            each = self.batches.steps_per_epoch
            epochs = math.ceil(FEW_STEPS / each)
            few = "1 step is" if self.total == 1 else f"{self.total} steps are"
            self.reporter.say(f"{few} few to learn from; --epochs {epochs} makes them {epochs * each}")
        if self.state.step == 0 and self.section.batch_size > len(self.images):
            self.reporter.say(
                f"batches of {len(self.images)} images, all there are, for a batch size of {self.section.batch_size}"
            )
        epochs = epochs_of(len(self.images), self.section)
        if self.state.step == 0 and epochs > MANY_EPOCHS and self.total > 10 * FEW_STEPS:
            say = f"{epochs} epochs are many for {len(self.images)} images: it learns them by heart"
            self.reporter.say(f"{say}; --epochs {MANY_EPOCHS}, or add images")


def steps_of(images: TrainingImages, section: Optimisation) -> int:
    """Steps of a whole training."""
    return steps_in_all(len(images), section)


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> Batch:
    """A batch of the loader as a step takes it: images in [0, 1], all but the tags on the device (see ``Batch``)."""
    moved = {name: value if name == "present" else value.to(device, non_blocking=True) for name, value in batch.items()}
    moved["image"] = moved["image"].float() / 255
    return moved


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the terms, a float32 scalar."""
    return torch.stack([value.float() for value in losses.values()]).sum()
